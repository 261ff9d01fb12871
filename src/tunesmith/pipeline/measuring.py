"""Base and tuned model measured on the same held-out rows and the same plain text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tunesmith.base.conversation import Conversation
from tunesmith.base.files import value_hash, write_text
from tunesmith.base.random import seed_of
from tunesmith.evaluate.answers import Answer, answer, sample
from tunesmith.evaluate.bertscore import BertScore
from tunesmith.evaluate.compare import compare, loss_rows, write_evaluation
from tunesmith.evaluate.language import Losses, TextBits, response_losses, text_bits
from tunesmith.model.generate import CACHE_TOKENS
from tunesmith.pipeline.examining import decoding_of
from tunesmith.pipeline.folder import RunFolder
from tunesmith.pipeline.preparing import Prepared, supervised_rows
from tunesmith.recipe.evaluation import Evaluate

TUNED = "tuned"
# Training keeps the activations of a token in every layer, answering only its keys and values: a small part of them.
CACHED_PER_TRAINED = 16


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured on one model: its answers by who gave them, its losses, and the cost of plain text."""

    answers: dict[str, list[Answer]]
    losses: Losses
    text: TextBits | None

    def write(self, path: Path) -> None:
        text = self.text and [self.text.bits.tolist(), self.text.bytes.tolist()]
        value = {
            "answers": {who: [asdict(one) for one in given] for who, given in self.answers.items()},
            "losses": [self.losses.nats.tolist(), self.losses.tokens.tolist()],
            "text": text,
        }
        write_text(path, json.dumps(value))

    @classmethod
    def read(cls, path: Path) -> Measured:
        value = json.loads(path.read_text(encoding="utf-8"))
        nats, tokens = value["losses"]
        text = value["text"] and TextBits(np.array(value["text"][0]), np.array(value["text"][1], dtype=np.int64))
        return cls(
            {who: [Answer(**one) for one in given] for who, given in value["answers"].items()},
            Losses(np.array(nats, dtype=np.float64), np.array(tokens, dtype=np.int64)),
            text,
        )


def measured(run: RunFolder, prepared: Prepared, who: str, of: str, load: Any) -> Measured:
    """Measure the model that `load` gives, or read what was measured before.

    who: "base" or "tuned"; the base is asked in every style of the recipe. of: a key of the model that is measured.
    """
    evaluate = run.recipe.evaluate
    # A limit changes no measurement: who moves it need not wait for all of them again.
    settings = evaluate.model_dump(mode="json", exclude={"suites": True, "forgetting": {"max_rise"}})
    key = value_hash([of, run.facts["keys"]["prepare"], settings, run.recipe.seed])
    path = run.path / "evaluation" / f"{who}.json"
    stage = f"evaluate {who}"
    if not (run.is_done(stage, key) and path.is_file()):
        with run.stage(stage, key):
            model, tokenizer = load()
            styles = {TUNED: "chat"} if who == TUNED else {f"base_{style}": style for style in evaluate.base_styles}
            _measure(model, tokenizer, prepared, evaluate, run, styles).write(path)
    return Measured.read(path)


def _measure(
    model: Any, tokenizer: Any, prepared: Prepared, evaluate: Evaluate, run: RunFolder, styles: Mapping[str, Any]
) -> Measured:
    room = run.recipe.train.tokens_per_batch  # what fits in training fits here: less of it helps where memory runs out
    given = evaluate.bertscore  # read first, so that its faults are told before anything is answered
    models = {"bertscore": BertScore(**given.model_dump())} if given else None
    answers = {
        who: answer(
            model,
            tokenizer,
            _answered(prepared, evaluate.items, run.recipe.seed),
            style=style,
            max_new_tokens=evaluate.max_new_tokens,
            metric=evaluate.metric,
            among=[row for rows in prepared.held_out.values() for row in rows],
            models=models,
            decoding=decoding_of(run.recipe),
            batch_tokens=min(CACHE_TOKENS, CACHED_PER_TRAINED * room),
            title=f"Answering: {who.replace('_', ', ')}",
        )
        for who, style in styles.items()
        if evaluate.items
    }
    rows = [row for level in scored(prepared, evaluate.losses, run.recipe.seed).values() for row in level]
    losses = response_losses(model, supervised_rows(rows, prepared.store), batch_tokens=room)
    text = None
    if prepared.texts:
        longest = run.recipe.train.max_length
        text = text_bits(model, tokenizer, prepared.texts, max_length=longest, batch_tokens=room)
    return Measured(answers, losses, text)


def _answered(prepared: Prepared, count: int, seed: int) -> dict[str, list[Conversation]]:
    levels = {level: sample(rows, count, seed=seed) for level, rows in prepared.held_out.items()}
    return {level: rows for level, rows in levels.items() if rows}


def scored(prepared: Prepared, count: int, seed: int) -> dict[str, list[Conversation]]:
    """The rows of each level whose response loss is measured. A smaller count gives the start of a larger one."""

    def first(rows: Sequence[Conversation]) -> list[Conversation]:
        return sorted(rows, key=lambda row: seed_of(seed, "losses", row.id))[:count]

    return {level: first(rows) for level, rows in prepared.held_out.items() if rows}


def write_comparison(
    run: RunFolder, prepared: Prepared, base: Measured, tuned: Measured, suites: Mapping[str, Any]
) -> dict[str, Any]:
    """Compare the two, write evaluation/summary.json and items.jsonl, and return the summary, the suites' included."""
    evaluate = run.recipe.evaluate
    levels = scored(prepared, evaluate.losses, run.recipe.seed)
    answers = base.answers | tuned.answers
    summary = compare(
        answers,
        loss_rows(levels, base.losses, tuned.losses),
        (base.text, tuned.text) if base.text and tuned.text else None,
        max_rise=evaluate.forgetting.max_rise if evaluate.forgetting else None,
        seed=run.recipe.seed,
    ) | {"suites": dict(suites)}
    write_evaluation(run.path / "evaluation", summary, answers)
    return summary
