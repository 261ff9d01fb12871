"""Suites of items besides the held-out rows: what one model makes of them, and base against tuned model."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tunesmith.base.conversation import Conversation
from tunesmith.base.files import write_json, write_text
from tunesmith.evaluate.answers import Answer
from tunesmith.evaluate.compare import (
    FEW_ITEMS,
    Filled,
    filled,
    forgetting_row,
    is_within,
    item_row,
    loss_row,
    loss_rows,
    score_row,
    together,
    unanswered,
    unstopped,
)
from tunesmith.evaluate.language import Losses, TextBits


@dataclass(frozen=True, slots=True)
class Examined:
    """What one model made of a suite; which fields are filled depends on the suite's kind.

    answers: by who gave them ("tuned", "base_chat", "base_plain"), with a score each. turns: of each question its
    prompts and answers in order, by who gave them. losses, text: as `response_losses` and `text_bits` measure them.
    """

    answers: dict[str, list[Answer]] = field(default_factory=dict)
    turns: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    losses: Losses | None = None
    text: TextBits | None = None

    def write(self, path: Path) -> None:
        losses, text = self.losses, self.text
        value = {
            "answers": {who: [asdict(one) for one in given] for who, given in self.answers.items()},
            "turns": self.turns,
            "losses": losses and [losses.nats.tolist(), losses.tokens.tolist()],
            "text": text and [text.bits.tolist(), text.bytes.tolist()],
        }
        write_text(path, json.dumps(value))

    @classmethod
    def read(cls, path: Path) -> Examined:
        value = json.loads(path.read_text(encoding="utf-8"))

        def pair(name: str, kind: Callable[..., Any]) -> Any:
            found = value[name]
            return found and kind(np.array(found[0], dtype=np.float64), np.array(found[1], dtype=np.int64))

        answers = {who: [Answer(**one) for one in given] for who, given in value["answers"].items()}
        return cls(answers, value["turns"], pair("losses", Losses), pair("text", TextBits))


def compare_suite(
    base: Examined,
    tuned: Examined,
    *,
    kind: str,
    guard: float | None,
    rows: Sequence[Conversation] = (),
    seed: int = 0,
) -> dict[str, Any]:
    """Base against tuned model on one suite, ready for JSON, with `held`: whether the guard is.

    guard: how much worse than the base the tuned model may be: of a score in points, of a loss or of bits per byte
    relative to the base's; `worse` says how much it is. rows: those of a suite of losses, in order.
    """
    if tuned.turns:
        asked = tuned.turns[next(iter(tuned.turns))]
        warnings = unanswered({"turns": _turns_filled(base.turns | tuned.turns)}, so="are kept without an answer")
        return {"kind": kind, "n": len(asked), "guard": None, "held": True, "worse": 0.0, "warnings": warnings}
    answers = together(base.answers | tuned.answers)
    if tuned.losses and base.losses:
        found = loss_row(loss_rows({"": rows}, base.losses, tuned.losses), seed)
        worse = found["difference"]["mean"] / found["base"] if found["base"] else 0.0
    elif tuned.text and base.text:
        found = forgetting_row(base.text, tuned.text, guard, seed)
        found["n"], worse = found["documents"], found["rise"]
    else:
        found = score_row(answers, seed)
        metrics = sorted({row["tuned"].metric for row in answers})
        found["metric"], worse = " and ".join(metrics), -found["difference"]["mean"]
    items = found.get("items", found["n"])  # several rows of one item are one
    few = [f"Only {items} items: intervals this wide settle little."] if items < FEW_ITEMS else []
    endless = unstopped(tuned.answers.get("tuned", ()), "max_new_tokens of this suite")
    warnings = [*few, *endless, *unanswered({"prompts": filled(answers)})]
    held = is_within(worse, guard)
    return found | {"kind": kind, "worse": worse, "guard": guard, "held": held, "warnings": warnings}


def _turns_filled(turns: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[tuple[str, Filled]]:
    """Of each turn of each question the context that its prompt fills, which runs of older versions did not keep."""
    found: list[tuple[str, Filled]] = []
    for asked in zip(*turns.values(), strict=True):
        filled = [one.get("filled") or [0] * len(one["turns"]) for one in asked]
        for turn, given in enumerate(zip(*filled, strict=True), 1):
            found.append((f"turn {turn} of {asked[0]['question_id']}", dict(zip(turns, given, strict=True))))
    return found


def write_suite(folder: Path, summary: Mapping[str, Any], base: Examined, tuned: Examined) -> None:
    """Write a suite's summary.json, items.jsonl (an object for each answered item), or the questions' answers."""
    lines = [json.dumps(item_row(row)) + "\n" for row in together(base.answers | tuned.answers)]
    if lines:
        write_text(folder / "items.jsonl", "".join(lines))
    for who, asked in (base.turns | tuned.turns).items():
        write_text(folder / f"answers_{who}.jsonl", "".join(json.dumps(one) + "\n" for one in asked))
    write_json(folder / "summary.json", summary)
