"""Answering beside transformers' `generate`: one prompt at a time, and in padded batches in the order of arrival.

The Llama of 26M parameters of benchmarks/train.py, random weights, fp32, greedy, all cores; 256 T0 prompts of at most
1,024 tokens (the pocket world's if T0 is not there). Answers end as the rows' own responses do, after their number of
tokens but at most 64, or all after 64 (--full), because random weights never say a stop token; every side is told so
and must give the same number of tokens. transformers' batches have the size that suits it best among those tried.

Sides run in turns, in one process; what is printed are medians and ratios of medians.

    python benchmarks/generate.py [--rounds N] [--prompts N] [--full] [--batches N N ...]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from prepare import read, trained
from torch import Tensor
from train import SMALL
from transformers import LlamaConfig, LlamaForCausalLM, StoppingCriteria, StoppingCriteriaList

from tunesmith.base.random import python_stream
from tunesmith.model.attention import NAME
from tunesmith.model.generate import generate
from tunesmith.tokens.tokenise import tokenise

LONGEST_PROMPT, LONGEST_ANSWER = 1024, 64
PADDING = 0


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--prompts", type=int, default=256)
    options.add_argument("--full", action="store_true", help="every answer has 64 tokens")
    options.add_argument("--batches", type=int, nargs="+", default=[16, 32, 64], help="rows of transformers' batches")
    options.add_argument("--without-single", action="store_true", help="leave out one prompt at a time")
    given = options.parse_args()
    prompts, lengths = drawn(given.prompts)
    if given.full:
        lengths = [LONGEST_ANSWER] * len(prompts)
    sides: dict[str, Callable[[], list[int]]] = {"Tunesmith": lambda: ours(prompts, lengths)}
    if not given.without_single:
        sides["transformers, one at a time"] = lambda: theirs(prompts, lengths, 1)
    for rows in given.batches:
        sides[f"transformers, {rows} rows"] = lambda rows=rows: theirs(prompts, lengths, rows)
    models.append(LlamaForCausalLM(LlamaConfig(**SMALL, attn_implementation=NAME)).eval())
    models.append(LlamaForCausalLM(LlamaConfig(**SMALL, attn_implementation="sdpa")).eval())
    models[1].load_state_dict(models[0].state_dict())
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(given.rounds):
        for name, run in sides.items():
            started = time.perf_counter()
            counts = run()
            taken[name].append(time.perf_counter() - started)
            assert counts == lengths, f"{name} gave other numbers of tokens"
            print(f"    {name}: {taken[name][-1]:.1f} s", flush=True)
    report(taken, prompts, lengths)


models: list[LlamaForCausalLM] = []


def drawn(count: int) -> tuple[list[list[int]], list[int]]:
    """Prompts, in random order, and how many tokens each row's response has, at most 64."""
    rows = list(read(55_185))
    python_stream(0, "prompts").shuffle(rows)
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = trained(Path(folder), rows[:10_000])
    prompts = tokenise(tokenizer, [row.prompt[-1].content for row in rows[: 2 * count]])
    answers = tokenise(tokenizer, [row.response for row in rows[: 2 * count]])
    pairs = [(p, min(len(a), LONGEST_ANSWER)) for p, a in zip(prompts, answers, strict=True)]
    pairs = [pair for pair in pairs if len(pair[0]) <= LONGEST_PROMPT and pair[1]][:count]
    return [p for p, _ in pairs], [length for _, length in pairs]


def ours(prompts: Sequence[list[int]], lengths: Sequence[int]) -> list[int]:
    def finished(index: int, tokens: list[int]) -> bool:
        return len(tokens) == lengths[index]

    answers = generate(models[0], prompts, stop=(), max_new_tokens=LONGEST_ANSWER, finished=finished)
    return [len(answer) for answer in answers]


class After(StoppingCriteria):
    """Ends each row after its own number of new tokens."""

    def __init__(self, width: int, lengths: Sequence[int]) -> None:
        self._ends = torch.tensor(lengths) + width

    def __call__(self, input_ids: Tensor, scores: Tensor, **options: object) -> Tensor:
        return input_ids.shape[1] >= self._ends


@torch.no_grad()
def theirs(prompts: Sequence[list[int]], lengths: Sequence[int], rows: int) -> list[int]:
    counts = []
    for start in range(0, len(prompts), rows):
        batch, wanted = prompts[start : start + rows], lengths[start : start + rows]
        width = max(map(len, batch))
        ids = torch.tensor([[PADDING] * (width - len(prompt)) + list(prompt) for prompt in batch])
        seen = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in batch])
        out = models[1].generate(
            ids,
            attention_mask=seen,
            do_sample=False,
            max_new_tokens=LONGEST_ANSWER,
            eos_token_id=None,
            pad_token_id=PADDING,
            stopping_criteria=StoppingCriteriaList([After(width, wanted)]),
        )
        counts += [min(out.shape[1] - width, length) for length in wanted]
    return counts


def report(taken: dict[str, list[float]], prompts: Sequence[list[int]], lengths: Sequence[int]) -> None:
    medians = {name: statistics.median(seconds) for name, seconds in taken.items()}
    sizes = sorted(map(len, prompts))
    print(
        f"{len(prompts)} prompts of {sizes[0]} to {sizes[-1]} tokens (median {sizes[len(sizes) // 2]}), "
        f"{sum(lengths):,} new tokens; {torch.get_num_threads()} threads; medians of {len(taken['Tunesmith'])}"
    )
    for name, seconds in medians.items():
        times = seconds / medians["Tunesmith"]
        print(f"  {name:28} {seconds:6.1f} s, {sum(lengths) / seconds:7,.0f} new tokens/s; Tunesmith is {times:.2f} x")


if __name__ == "__main__":
    main()
