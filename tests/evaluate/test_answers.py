"""Which prompts are asked, where plain answers end, and that every row gets its own answer."""

from __future__ import annotations

from typing import Any

import pytest
from tiny import tiny_llama

from tunesmith.base.conversation import Conversation, Message
from tunesmith.evaluate import answers as module
from tunesmith.evaluate.answers import Decoding, answer, answerable, readable, sample
from tunesmith.model.beam import beam_search
from tunesmith.model.generate import generate
from tunesmith.tokens.templates import plain_prompt, prompt_ids, stop_token_ids


def ask(name: str, prompt: str, response: str, **labels: str) -> Conversation:
    return Conversation(f"s:{name}", (Message("user", prompt), Message("assistant", response)), source="s", **labels)


ROWS = [
    ask("1", "Capital of France?", "Paris", cluster="facts", task="capital", item="france"),
    ask("2", "Count to two.", "1\n2", cluster="counting"),
    ask("3", "Capital of Spain?", "Madrid", cluster="facts", task="capital"),
]
LEVELS = {"new_items": ROWS[:2], "new_clusters": ROWS[2:]}


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch, tokenizer: Any) -> dict[str, Any]:
    """Replace generation: each row's text comes token by token until `finished`; prompts are kept."""
    script: dict[str, Any] = {}

    def generate(
        model: Any,
        prompts: list[list[int]],
        *,
        stop: Any,
        max_new_tokens: int,
        finished: Any,
        advance: Any,
        **more: Any,
    ):
        script["prompts"], script["stop"] = [tokenizer.decode(prompt) for prompt in prompts], stop
        script["batch_tokens"] = more["batch_tokens"]
        out = []
        for row, text in enumerate(script["texts"]):
            tokens: list[int] = []
            for token in tokenizer(text, add_special_tokens=False)["input_ids"][:max_new_tokens]:
                tokens.append(token)
                if finished is not None and finished(row, tokens):
                    break
            out.append(tokens)
        return out

    monkeypatch.setattr(module, "generate", generate)
    return script


def test_chat_answers_are_scored_row_by_row(model: Any, tokenizer: Any, scripted: dict[str, Any]) -> None:
    scripted["texts"] = [" paris.", "1\n2", "x" * 20]
    first, second, third = answer(model, tokenizer, LEVELS, style="chat", max_new_tokens=20, batch_tokens=99)
    assert scripted["batch_tokens"] == 99
    assert scripted["prompts"][0] == tokenizer.apply_chat_template(
        [{"role": "user", "content": "Capital of France?"}], add_generation_prompt=True, tokenize=False
    )
    assert tokenizer.eos_token_id in scripted["stop"]
    assert (first.row, first.item, first.level, first.cluster) == ("s:1", "france", "new_items", "facts")
    assert (first.response, first.score, first.stopped, first.tokens) == ("paris.", 1.0, True, 7)
    assert (second.item, second.level, second.score) == ("s:2", "new_items", 1.0)
    assert (third.level, third.score, third.stopped, third.tokens) == ("new_clusters", 0.0, False, 20)


def test_plain_answers_end_at_a_line_or_a_blank_line(model: Any, tokenizer: Any, scripted: dict[str, Any]) -> None:
    scripted["texts"] = ["\n Paris\nQuestion: and", " 1\n2\n\nQuestion", " Madrid"]
    answers = answer(model, tokenizer, LEVELS, style="plain", max_new_tokens=10)
    assert scripted["prompts"][0] == "<s>" + plain_prompt(ROWS[0].prompt)
    assert [a.response for a in answers] == ["Paris", "1\n2", "Madrid"]
    assert [a.tokens for a in answers] == [len("\n Paris\n"), len(" 1\n2\n\n"), len(" Madrid")]
    assert all(a.stopped and a.score == 1 for a in answers)


def test_a_plain_answer_that_ends_at_the_limit_counts_as_stopped(
    model: Any, tokenizer: Any, scripted: dict[str, Any]
) -> None:
    scripted["texts"] = ["Paris\n", "1\n2", "abcdefgh"]
    answers = answer(model, tokenizer, LEVELS, style="plain", max_new_tokens=6)
    assert [a.stopped for a in answers] == [True, True, False]


@pytest.mark.parametrize("style", ["chat", "plain"])
def test_a_real_model_answers_the_same_twice(model: Any, tokenizer: Any, style: Any) -> None:
    once = answer(model, tokenizer, LEVELS, style=style, max_new_tokens=12)
    assert once == answer(model, tokenizer, LEVELS, style=style, max_new_tokens=12)
    alone = [answer(model, tokenizer, {"x": [row]}, style=style, max_new_tokens=12)[0].response for row in ROWS]
    assert [a.response for a in once] == alone


@pytest.mark.parametrize("style", ["chat", "plain"])
@pytest.mark.parametrize("decoding", [Decoding(), Decoding(beams=2)])
def test_a_prompt_that_fills_the_context_is_told_from_an_answer_without_an_end(
    tokenizer: Any, style: Any, decoding: Decoding
) -> None:
    short = tiny_llama(len(tokenizer), max_position_embeddings=96).eval()

    def tokens(prompt: str) -> int:
        (message,) = ask("", prompt, "-").prompt
        ids = prompt_ids([message], tokenizer) if style == "chat" else tokenizer(plain_prompt([message]))["input_ids"]
        return len(ids) + (style == "plain" and tokenizer.bos_token_id not in ids)

    around = tokens("")
    rows = [ask(str(room), "x" * (96 - around - room), "Paris") for room in (-9, 0, 1, 40)]
    assert [tokens(row.prompt[0].content) for row in rows] == [105, 96, 95, 56]
    found = answer(short, tokenizer, {"new_items": rows}, style=style, max_new_tokens=8, decoding=decoding)
    assert [one.filled for one in found] == [96, 96, 0, 0]
    assert [(one.response, one.score, one.stopped, one.tokens) for one in found[:2]] == [("", 0.0, False, 0)] * 2


def test_sample_is_seeded_nested_and_answerable() -> None:
    rows = [ask(str(index), "q", "a") for index in range(50)]
    rows.append(Conversation.from_text("s:text", "plain text"))
    some, more = sample(rows, 10, seed=1), sample(rows, 30, seed=1)
    assert more[:10] == some and len(sample(rows, 99, seed=1)) == 50
    assert some == sample(rows[::-1], 10, seed=1) != sample(rows, 10, seed=2)


def test_answerable() -> None:
    assert answerable(ROWS[0])
    assert not answerable(ask("4", "q", "  "))
    call = Message("assistant", "I look it up.", tool_calls=({"name": "f", "arguments": {}},))
    assert not answerable(Conversation("s:5", (Message("user", "q"), call)))
    assert not answerable(Conversation("s:6", (Message("assistant", "unasked"),)))


def test_readable_names_roles_only_where_there_are_several() -> None:
    assert readable(ROWS[0].prompt) == "Capital of France?"
    assert readable((Message("system", "Be brief."), Message("user", "Hi"))) == "system: Be brief.\n\nuser: Hi"


def test_answers_are_generated_as_the_decoding_says(model: Any, tokenizer: Any) -> None:
    options = {"style": "chat", "max_new_tokens": 6}
    prompts = [prompt_ids(row.prompt, tokenizer) for row in ROWS]
    stop = stop_token_ids(tokenizer)
    drawn = Decoding(temperature=0.9, top_k=20, seed=3)
    for decoding, wanted in (
        (Decoding(beams=3), beam_search(model, prompts, beams=3, stop=stop, max_new_tokens=6)),
        (drawn, generate(model, prompts, stop=stop, max_new_tokens=6, temperature=0.9, top_k=20, seed=3)),
    ):
        found = answer(model, tokenizer, {"new_items": ROWS}, decoding=decoding, **options)
        texts = [tokenizer.decode(tokens, skip_special_tokens=True).strip() for tokens in wanted]
        assert [one.response for one in found] == texts
    assert answer(model, tokenizer, {"a": ROWS}, **options) != answer(
        model, tokenizer, {"a": ROWS}, decoding=drawn, **options
    )
