"""Questions of several turns, as MT-Bench has them: answered turn by turn, and kept for a judge."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tunesmith.base.conversation import Conversation, Message
from tunesmith.base.errors import DataError
from tunesmith.data.sources.messages import Rejected
from tunesmith.data.sources.read import records_of
from tunesmith.evaluate.answers import Response, Style, respond


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, turn by turn. references: an answer to compare with for each turn, or none at all."""

    id: str
    turns: tuple[str, ...]
    category: str = ""
    references: tuple[str, ...] = ()

    @property
    def first(self) -> Conversation:
        """The first turn as a row, for the comparison with rows that were trained."""
        return Conversation(self.id, (Message("user", self.turns[0]), Message("assistant", "")))


def read_questions(name: str, path: str) -> list[Question]:
    """The questions of files in MT-Bench's shape: `turns`, and `question_id`, `category`, `reference` where given.

    Raises DataError naming the line that is in another shape.
    """
    found: list[Question] = []
    for file, label, record in records_of(path):
        turns = record.value.get("turns") if isinstance(record.value, dict) else None
        if isinstance(record.value, Rejected) or not _are_texts(turns):
            raise DataError(
                f"{file}, item {record.number}: no question. Each needs `turns`, a list of texts that are asked "
                f'one after the other, as in {{"question_id": 1, "turns": ["Write ...", "Now shorten it."]}}.'
            )
        given = record.value.get("reference") or ()
        references = tuple(given) if _are_texts(given) else ()
        given_id = record.value.get("question_id")
        id = f"{name}:{label}{record.number}" if given_id is None else f"{label}{given_id}"
        found.append(Question(id, tuple(turns or ()), str(record.value.get("category") or ""), references))
    if not found:
        raise DataError(f"{path} holds no question. Check the path.")
    return found


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, str) and one.strip() for one in value)


def answer_turns(
    model: Any, tokenizer: Any, questions: Iterable[Question], *, style: Style, title: str, **options: Any
) -> list[dict[str, Any]]:
    """Each question with the model's answers, ready for JSON. All first turns are answered together, then all second
    ones, which show the model its own answers before. options: `max_new_tokens`, `batch_tokens` of `respond`.
    """
    asked = list(questions)
    given: dict[int, list[Response]] = {place: [] for place in range(len(asked))}
    for turn in range(max(len(question.turns) for question in asked)):
        going = [place for place, question in enumerate(asked) if turn < len(question.turns)]
        prompts = [_prompt(asked[place], given[place]) for place in going]
        responses = respond(model, tokenizer, prompts, style=style, title=f"{title}, turn {turn + 1}", **options)
        for place, response in zip(going, responses, strict=True):
            given[place].append(response)
    return [_told(question, given[place]) for place, question in enumerate(asked)]


def _prompt(question: Question, answers: list[Response]) -> list[Message]:
    messages: list[Message] = []
    for asked, answer in zip(question.turns, answers, strict=False):
        messages += [Message("user", asked), Message("assistant", answer.text)]
    return [*messages, Message("user", question.turns[len(answers)])]


def _told(question: Question, answers: list[Response]) -> dict[str, Any]:
    return {
        "question_id": question.id,
        "category": question.category,
        "turns": list(question.turns),
        "references": list(question.references),
        "answers": [answer.text for answer in answers],
        "stopped": [answer.stopped for answer in answers],
        "filled": [answer.filled for answer in answers],
    }
