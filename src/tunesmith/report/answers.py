"""Answers side by side, from evaluation/items.jsonl: which are shown, what each one shows, how answers end."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any, Literal

from tunesmith.report.comparison import LEVELS
from tunesmith.report.load import Fields, at, fields_at, number
from tunesmith.report.words import clipped, printable

Outcome = Literal["worse", "better", "neither", "both"]

OUTCOMES: dict[Outcome, str] = {
    "worse": "Worse",
    "better": "Better",
    "neither": "Neither right",
    "both": "Both right",
}
ANSWERERS = {"base_chat": "Base, chat template", "base_plain": "Base, plain prompt", "tuned": "Tuned"}
RIGHT = 0.999
ITEMS_SHOWN, BYTES_SHOWN = 300, 2_000_000
PROMPT_LENGTH, ANSWER_LENGTH, WORDS_COMPARED = 2_000, 1_200, 250


@dataclass(frozen=True)
class Answer:
    """What one model said. `words` are (text, differs from the expected response) runs."""

    who: str
    name: str
    words: list[tuple[str, bool]]
    score: float | None
    stopped: bool


@dataclass(frozen=True)
class Item:
    row: str
    level: str
    cluster: str
    task: str
    outcome: Outcome
    prompt: str
    expected: str
    answers: list[Answer]

    @property
    def bytes(self) -> int:
        texts = [self.prompt, self.expected, *(run for answer in self.answers for run, _ in answer.words)]
        # Escaping makes up to five characters of one.
        return 600 + sum(len(t.encode("utf-8", "replace")) + 4 * sum(map(t.count, "<>&'\"")) for t in texts)


@dataclass(frozen=True)
class Habits:
    """How one model answers: what share stops by itself, and the median length in characters."""

    who: str
    name: str
    answers: int
    stopped: float
    length: int


@dataclass(frozen=True)
class SideBySide:
    """The items shown, out of `total`; `outcomes` counts all of them."""

    items: list[Item]
    total: int
    outcomes: dict[Outcome, int]
    levels: list[tuple[str, str]]
    clusters: list[str]
    habits: list[Habits]


def side_by_side(items: Sequence[Fields]) -> SideBySide | None:
    """A sample that covers every level and outcome alike, worst first. None when nothing was answered."""
    if not items:
        return None
    outcomes = [outcome(item) for item in items]
    shown: list[Item] = []
    size = 0
    for index in spread(items, outcomes)[:ITEMS_SHOWN]:
        item = _item(items[index], outcomes[index])
        size += item.bytes
        if size > BYTES_SHOWN:
            break
        shown.append(item)
    order, levels = list(OUTCOMES), list(LEVELS)
    # Stable sorts: within a level and outcome the spread's order stays.
    shown.sort(key=lambda item: (order.index(item.outcome), levels.index(item.level) if item.level in levels else 9))
    present = {item.level for item in shown}
    return SideBySide(
        items=shown,
        total=len(items),
        outcomes={o: outcomes.count(o) for o in OUTCOMES},
        levels=[(key, LEVELS[key][0]) for key in LEVELS if key in present],
        clusters=sorted({item.cluster for item in shown if item.cluster}),
        habits=[habits for who in ANSWERERS if (habits := _habits(items, who))],
    )


def outcome(item: Fields) -> Outcome:
    """The tuned model against the better of the base's answers to this item."""
    tuned = number(item, "scores", "tuned") or 0.0
    base = max(number(item, "scores", who) or 0.0 for who in ("base_chat", "base_plain"))
    if tuned != base:
        return "better" if tuned > base else "worse"
    return "both" if tuned >= RIGHT else "neither"


def spread(items: Sequence[Fields], outcomes: Sequence[Outcome]) -> list[int]:
    """Indices of items, taking one of each (level, outcome) in turn, each in an order that no score can influence."""
    groups: dict[tuple[str, str], list[tuple[str, int]]] = defaultdict(list)
    for index, (item, result) in enumerate(zip(items, outcomes, strict=True)):
        key = hashlib.blake2b(f"{_word(item, 'row')} {index}".encode("utf-8", "replace"), digest_size=8).hexdigest()
        groups[_word(item, "level"), result].append((key, index))
    ranked = [(rank, key, index) for group in groups.values() for rank, (key, index) in enumerate(sorted(group))]
    return [index for _, _, index in sorted(ranked)]


def differing_words(answer: str, expected: str) -> list[tuple[str, bool]]:
    """`answer` in runs, each marked if it is not in `expected` (by longest matching runs of words)."""
    said, wanted = answer.split(" "), expected.split(" ")
    if max(len(said), len(wanted)) > WORDS_COMPARED:
        return [(answer, False)]
    blocks = SequenceMatcher(None, [w.casefold() for w in said], [w.casefold() for w in wanted], autojunk=False)
    return [(" ".join(said[a:b]), operation != "equal") for operation, a, b, _, _ in blocks.get_opcodes() if b > a]


def _item(item: Fields, result: Outcome) -> Item:
    expected = _text(at(item, "expected"), ANSWER_LENGTH)
    said = fields_at(item, "answers")
    return Item(
        row=_word(item, "row"),
        level=_word(item, "level"),
        cluster=_word(item, "cluster"),
        task=_word(item, "task"),
        outcome=result,
        prompt=_text(at(item, "prompt"), PROMPT_LENGTH),
        expected=expected,
        answers=[_answer(item, who, name, expected) for who, name in ANSWERERS.items() if who in said],
    )


def _answer(item: Fields, who: str, name: str, expected: str) -> Answer:
    text, score = _text(at(item, "answers", who), ANSWER_LENGTH), number(item, "scores", who)
    marked = who == "tuned" and (score or 0.0) < RIGHT
    words = differing_words(text, expected) if marked else [(text, False)]
    return Answer(who, name, words, score, at(item, "stopped", who) is not False)


def _habits(items: Sequence[Fields], who: str) -> Habits | None:
    answered = [item for item in items if isinstance(at(item, "answers", who), str)]
    if not answered:
        return None
    lengths = sorted(len(item["answers"][who]) for item in answered)
    stopped = sum(at(item, "stopped", who) is not False for item in answered) / len(answered)
    return Habits(who, ANSWERERS[who], len(answered), stopped, lengths[len(lengths) // 2])


def _word(item: Fields, key: str) -> str:
    return clipped(str(item.get(key) or ""), 200)


def _text(value: Any, length: int) -> str:
    """Text of a prompt or response; a list of messages becomes one paragraph each."""
    if isinstance(value, Iterable) and not isinstance(value, str | dict):
        value = "\n\n".join(f"{at(m, 'role')}: {at(m, 'content')}" for m in value)
    return clipped(printable(str(value or "")), length)
