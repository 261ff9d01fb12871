"""Suites of verifiable instructions: their items, verdicts on responses, and base against tuned model.

Four rates are told apart, as IFEval does: of prompts all of whose instructions are followed and of single instructions,
each strict (the response as it is) and loose (in any of eight forms, so that a greeting, a closing line or Markdown's
stars cost nothing).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tunesmith.base.conversation import Conversation, Message
from tunesmith.base.errors import DataError
from tunesmith.data.sources.messages import Rejected
from tunesmith.data.sources.read import records_of
from tunesmith.evaluate.answers import Answer, Style, respond
from tunesmith.evaluate.intervals import paired_bootstrap, score_interval
from tunesmith.evaluate.verifiable import CHECKS, Arguments, follows

METRIC = "instructions_followed"
RATES = ("prompt_strict", "prompt_loose", "instruction_strict", "instruction_loose")
# What asks for more than one paragraph: a plain answer to it does not end at the first blank line.
_LONG = {
    "length_constraints:number_paragraphs",
    "length_constraints:nth_paragraph_first_word",
    "length_constraints:number_sentences",
    "length_constraints:number_words",
    "detectable_format:number_bullet_lists",
    "detectable_format:multiple_sections",
    "detectable_format:title",
    "detectable_content:postscript",
    "combination:two_responses",
    "combination:repeat_prompt",
}


@dataclass(frozen=True, slots=True)
class InstructionItem:
    """A prompt with the instructions in it: their ids and, in the same order, their arguments."""

    key: str
    prompt: str
    instructions: tuple[str, ...]
    arguments: tuple[Arguments, ...]

    @property
    def row(self) -> Conversation:
        """The prompt as a row, for the comparison with rows that were trained."""
        return Conversation(self.key, (Message("user", self.prompt), Message("assistant", "")))

    @property
    def described(self) -> str:
        """What is verified, for people: an id a line, with its arguments."""
        pairs = zip(self.instructions, self.arguments, strict=True)
        return "\n".join(f"{name} {_told(given)}".strip() for name, given in pairs)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Which instructions of an item a response follows, strictly and loosely."""

    strict: tuple[bool, ...]
    loose: tuple[bool, ...]

    def rates(self) -> dict[str, list[float]]:
        """Of each rate what this item adds: one number for the prompt, or one for each instruction."""
        return {
            "prompt_strict": [float(all(self.strict))],
            "prompt_loose": [float(all(self.loose))],
            "instruction_strict": [float(one) for one in self.strict],
            "instruction_loose": [float(one) for one in self.loose],
        }


def verify(item: InstructionItem, response: str) -> Verdict:
    forms = loosened(response)
    pairs = list(zip(item.instructions, item.arguments, strict=True))
    return Verdict(
        tuple(follows(*pair, response) for pair in pairs),
        tuple(any(follows(*pair, form) for form in forms) for pair in pairs),
    )


def loosened(response: str) -> list[str]:
    """The eight forms of a response: with and without stars, each with and without its first and its last line."""
    lines = response.split("\n")
    parts = [response, *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))]
    return [*parts, *(part.replace("*", "") for part in parts)]


def read_instructions(name: str, path: str) -> list[InstructionItem]:
    """The items of files in IFEval's shape: `prompt`, `instruction_id_list`, `kwargs`, and `key` where given.

    Raises DataError naming the item that is in another shape, has an unknown instruction, or lacks an argument.
    """
    found: list[InstructionItem] = []
    for file, label, record in records_of(path):
        value = {} if isinstance(record.value, Rejected) or not isinstance(record.value, dict) else record.value
        key = value.get("key")
        item = _item(value, f"{name}:{label}{record.number}" if key is None else f"{label}{key}")
        if item is None:
            raise DataError(
                f"{file}, item {record.number}: no prompt with instructions. Each item needs `prompt`, a text, "
                f"`instruction_id_list`, ids of instructions, and `kwargs`, as many objects with their arguments, "
                f'as in {{"key": 1, "prompt": "Name five fish. No commas.", "instruction_id_list": '
                f'["punctuation:no_comma"], "kwargs": [{{}}]}}.'
            )
        try:
            verify(item, "any response")
        except (DataError, ValueError, TypeError) as error:
            raise DataError(f"{file}, item {record.number}: {error}") from error
        found.append(item)
    if not found:
        raise DataError(f"{path} holds no prompt with instructions. Check the path.")
    return found


def _item(value: Mapping[str, Any], key: str) -> InstructionItem | None:
    prompt, names, given = (value.get(part) for part in ("prompt", "instruction_id_list", "kwargs"))
    if not (isinstance(prompt, str) and prompt.strip() and isinstance(names, list) and names):
        return None
    if not (isinstance(given, list) and len(given) == len(names) and all(isinstance(one, dict) for one in given)):
        return None
    plain = tuple({name: part for name, part in one.items() if part is not None} for one in given)
    return InstructionItem(key, prompt, tuple(map(str, names)), plain)


def answer_instructions(
    model: Any, tokenizer: Any, items: Sequence[InstructionItem], *, suite: str, style: Style, **options: Any
) -> list[Answer]:
    """The model's greedy answers, each scored 1 if every instruction is strictly followed.

    options: `max_new_tokens`, `batch_tokens` and `title` of `respond`.
    """
    prompts = [item.row.prompt for item in items]
    ends = ["\n\n\n" if _LONG & set(item.instructions) else "\n\n" for item in items]
    responses = respond(model, tokenizer, prompts, style=style, ends=ends, **options)
    return [
        Answer(
            row=item.key,
            item=item.key,
            level=suite,
            cluster=item.instructions[0].partition(":")[0],
            task=item.instructions[0],
            metric=METRIC,
            prompt=item.prompt,
            expected=item.described,
            response=response.text,
            score=float(all(verify(item, response.text).strict)),
            stopped=response.stopped,
            tokens=response.tokens,
            filled=response.filled,
        )
        for item, response in zip(items, responses, strict=True)
    ]


def instruction_rates(
    items: Sequence[InstructionItem], answers: Mapping[str, Sequence[Answer]], seed: int
) -> dict[str, Any]:
    """The four rates, and of each instruction how often it is strictly followed, ready for JSON.

    answers: by who gave them, all to these items in order, "tuned" among them. A difference is that to the better of
    the base's prompt styles; intervals are over prompts.
    """
    verdicts = {
        who: [verify(item, answer.response) for item, answer in zip(items, given, strict=True)]
        for who, given in answers.items()
    }
    return {
        "rates": {rate: _rate(rate, items, verdicts, seed) for rate in RATES},
        "instructions": {name: _single(name, items, verdicts) for name in CHECKS if _asked(name, items)},
    }


def _rate(
    rate: str, items: Sequence[InstructionItem], verdicts: Mapping[str, Sequence[Verdict]], seed: int
) -> dict[str, Any]:
    added = {who: [verdict.rates()[rate] for verdict in given] for who, given in verdicts.items()}
    groups = [item.key for item, numbers in zip(items, added["tuned"], strict=True) for _ in numbers]
    scores = {who: np.concatenate(numbers) for who, numbers in added.items()}
    means = {who: score_interval(numbers, groups, seed=seed) for who, numbers in scores.items()}
    styles = [who for who in means if who != "tuned"]
    best = max(styles, key=lambda who: means[who].mean)
    difference = paired_bootstrap(scores[best], scores["tuned"], groups, seed=seed)
    return {
        "n": len(groups),
        "base": {who.removeprefix("base_"): means[who]._asdict() for who in styles},
        "tuned": means["tuned"]._asdict(),
        "difference": difference._asdict(),
    }


def _single(
    name: str, items: Sequence[InstructionItem], verdicts: Mapping[str, Sequence[Verdict]]
) -> dict[str, float | int]:
    def followed(given: Sequence[Verdict]) -> list[bool]:
        return [
            strict
            for item, verdict in zip(items, given, strict=True)
            for asked, strict in zip(item.instructions, verdict.strict, strict=True)
            if asked == name
        ]

    return {"n": _asked(name, items)} | {who: float(np.mean(followed(given))) for who, given in verdicts.items()}


def _asked(name: str, items: Sequence[InstructionItem]) -> int:
    return sum(item.instructions.count(name) for item in items)


def _told(given: Arguments) -> str:
    return ", ".join(f"{name}: {value}" for name, value in given.items())
