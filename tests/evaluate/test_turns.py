"""Questions over turns: what a later turn shows the model, and one that no longer fits."""

from __future__ import annotations

from typing import Any

from tiny import tiny_llama

from tunesmith.base.conversation import Message
from tunesmith.evaluate.answers import respond
from tunesmith.evaluate.turns import Question, answer_turns


def test_a_later_turn_shows_the_answers_before_and_may_fill_the_context(tokenizer: Any) -> None:
    model = tiny_llama(len(tokenizer), max_position_embeddings=160).eval()
    questions = [
        Question("short", ("Name a bird.", "One more.")),
        Question("long", ("Name a fish.", "More. " * 30)),
    ]
    options = {"style": "chat", "max_new_tokens": 6}
    short, long = answer_turns(model, tokenizer, questions, title="", **options)
    assert (short["filled"], long["filled"]) == ([0, 0], [0, 160])
    assert long["answers"][1] == "" and not long["stopped"][1]
    first = short["answers"][0]
    before = [Message("user", "Name a bird."), Message("assistant", first), Message("user", "One more.")]
    (again,) = respond(model, tokenizer, [before], **options)
    assert short["answers"][1] == again.text
