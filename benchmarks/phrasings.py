"""Prompt templates: rows put into words a second on one core, beside plain Jinja with one template and `str.format`.

20,000 made-up rows of premise, hypothesis and label, and the shipped templates for entailment: nine, three of them for
rows of one label. Plain Jinja and `str.format` write one prompt; Tunesmith also draws the template, finds the words of
the label, writes the response, bounds length and time, and checks the row. Processor time, the least of three.

    python benchmarks/phrasings.py
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

from jinja2 import Environment

from tunesmith.recipe.data import Source, Templates
from tunesmith.recipe.phrasings import phrasings_of

ROWS = 20_000
WORDS = "the a man woman dog cat plays runs on over grass guitar music stage street rain".split()


def main() -> None:
    draw = random.Random(0)
    rows: list[dict[str, Any]] = [
        {
            "premise": " ".join(draw.choices(WORDS, k=25)),
            "hypothesis": " ".join(draw.choices(WORDS, k=10)),
            "label": draw.randrange(3),
        }
        for _ in range(ROWS)
    ]
    plain = Environment().from_string('{{premise}}\n\nDoes it follow that "{{hypothesis}}"?\n- yes\n- maybe\n- no')
    bare = '{premise}\n\nDoes it follow that "{hypothesis}"?\n- yes\n- maybe\n- no'
    jinja = _seconds(lambda row, _: plain.render(row), rows)
    print(f"{'str.format, one prompt':<40}{ROWS / _seconds(lambda row, _: bare.format(**row), rows):>12,.0f} rows/s")
    print(f"{'Jinja, one prompt':<40}{ROWS / jinja:>12,.0f} rows/s")
    for said, given in (
        ("Tunesmith, one of nine phrasings", Templates(file="entailment")),
        ("the same, options in another order", Templates(file="entailment", shuffle_options=True)),
        ("all that fit, seven of a row", Templates(file="entailment", per_row="all")),
    ):
        phrasings = phrasings_of(Source(path="rows.jsonl", templates=given), given)
        seconds = _seconds(phrasings.render, rows)
        made = sum(len(phrasings.render(row, f"rows:{number}")) for number, row in enumerate(rows))
        print(
            f"{said:<40}{made / seconds:>12,.0f} rows/s, {seconds / made / (jinja / ROWS):.1f} times Jinja's time a row"
        )


def _seconds(render: Callable[[dict[str, Any], str], object], rows: list[dict[str, Any]]) -> float:
    taken = []
    for _ in range(3):
        started = time.process_time()
        for number, row in enumerate(rows):
            render(row, f"rows:{number}")
        taken.append(time.process_time() - started)
    return min(taken)


if __name__ == "__main__":
    main()
