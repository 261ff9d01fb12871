"""Log-likelihoods beside those of lm-evaluation-harness's own HFLM: the largest difference, and the time taken.

Questions with options, made of T0 rows (the pocket world's if T0 is not there): a row's instruction is the context, its
own response and those of other rows of its task, at most 60 characters long, are the options. Both sides get the same
model in fp32 and the same requests, each by its own tokenisation, in turns; what is printed are medians. HFLM sums in
fp32, and its own figures depend on how it batches: how far is measured too, by its batches of one. Tunesmith reads a
context once for all its options; what that saves is measured by reading each option behind its context, packed.

    python benchmarks/likelihood.py [--items N] [--options N] [--rounds N] [--base pocket] [--agreement]
"""

from __future__ import annotations

import argparse
import logging
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from prepare import read
from transformers import AutoModelForCausalLM

import tunesmith.model.likelihood as likelihood
from tunesmith.base.random import python_stream
from tunesmith.evaluate.harness import Harness
from tunesmith.model.load import load_base

Results = Sequence[tuple[float, bool]]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--items", type=int, default=500)
    options.add_argument("--options", type=int, default=4)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--batch", type=int, default=16, help="rows of HFLM's batches")
    options.add_argument("--base", default="pocket")
    options.add_argument("--agreement", action="store_true", help="only Tunesmith and HFLM, not what else is measured")
    given = options.parse_args()
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    loaded = load_base(given.base)
    stock = AutoModelForCausalLM.from_pretrained(loaded.path, dtype=torch.float32).eval()
    asked = requests(given.items, given.options)
    ours = Harness(loaded.model, loaded.tokenizer, chat=False)
    theirs = HFLM(pretrained=stock, tokenizer=loaded.tokenizer, batch_size=given.batch)
    single = HFLM(pretrained=stock, tokenizer=loaded.tokenizer, batch_size=1)

    def apart() -> Results:
        kept, likelihood._behind_shared = likelihood._behind_shared, likelihood._behind_each
        try:
            return ours.loglikelihood(asked, disable_tqdm=True)
        finally:
            likelihood._behind_shared = kept

    sides: dict[str, Callable[[], Results]] = {
        "Tunesmith": lambda: ours.loglikelihood(asked, disable_tqdm=True),
        "Tunesmith, contexts not shared": apart,
        "HFLM": lambda: theirs.loglikelihood(asked, disable_tqdm=True),
        "HFLM, batches of one": lambda: single.loglikelihood(asked, disable_tqdm=True),
    }
    if given.agreement:
        sides = {name: sides[name] for name in ("Tunesmith", "HFLM")}
    taken: dict[str, list[float]] = {name: [] for name in sides}
    found: dict[str, Results] = {}
    for _ in range(given.rounds):
        for name, run in sides.items():
            started = time.perf_counter()
            found[name] = run()
            taken[name].append(time.perf_counter() - started)
            print(f"    {name}: {taken[name][-1]:.1f} s", flush=True)
    report(taken, found, given.items, given.options)


def requests(items: int, options: int) -> list[Instance]:
    by_task = defaultdict(list)
    for row in read(55_185):
        if len(row.prompt[-1].content) < 2000 and len(row.response) <= 60:
            by_task[row.cluster, row.task].append(row)
    draw = python_stream(0, "choices")
    rows = [row for some in by_task.values() if len({row.response for row in some}) >= options for row in some]
    made = []
    for number, row in enumerate(draw.sample(rows, items)):
        others = sorted({other.response for other in by_task[row.cluster, row.task]} - {row.response})
        for place, option in enumerate([row.response, *draw.sample(others, options - 1)]):
            arguments = (row.prompt[-1].content + "\nAnswer:", f" {option}")
            made.append(Instance("loglikelihood", {}, arguments, place, metadata=("choices", number, 1)))
    return made


def report(taken: dict[str, list[float]], found: dict[str, Results], items: int, options: int) -> None:
    reference = found["HFLM"]
    print(
        f"{items} items of {options} options; {torch.get_num_threads()} threads; medians of {len(taken['Tunesmith'])}"
    )
    own = statistics.median(taken["Tunesmith"])
    for name, seconds in taken.items():
        pairs = list(zip(found[name], reference, strict=True))
        furthest = max(abs(one[0] - other[0]) for one, other in pairs)
        size = max(abs(other[0]) for _, other in pairs)
        greedy = sum(one[1] != other[1] for one, other in pairs)
        median = statistics.median(seconds)
        print(
            f"  {name:32} {median:6.1f} s, Tunesmith is {median / own:.2f} x; furthest from HFLM {furthest:.1e} of "
            f"up to {size:,.0f} nats, {greedy} other verdicts on greedy"
        )


if __name__ == "__main__":
    main()
