"""Batched generation against one prompt at a time and against transformers' own `generate`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
import torch
from tiny import tiny_llama
from transformers import LlamaForCausalLM

from tunesmith.base.random import python_stream
from tunesmith.model import generate as module
from tunesmith.model.generate import batches, generate, stream

STOP = frozenset(range(8))


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    return tiny_llama(
        64,
        seed=1,
        max_position_embeddings=128,
        initializer_range=0.5,  # far apart logits: no near ties that rounding could turn
        eos_token_id=sorted(STOP),
        bos_token_id=1,
        pad_token_id=0,
    ).eval()


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    draw = python_stream(0, "prompts")
    return [[draw.randrange(8, 64) for _ in range(draw.randint(1, 40))] for _ in range(30)]


def reference(model: LlamaForCausalLM, prompt: list[int], max_new_tokens: int) -> list[int]:
    ids = torch.tensor([prompt])
    out = model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=max_new_tokens, pad_token_id=0
    )
    new: list[int] = out[0, len(prompt) :].tolist()
    return next((new[:place] for place, token in enumerate(new) if token in STOP), new)


def test_batched_equals_transformers_and_one_at_a_time(model: LlamaForCausalLM, prompts: list[list[int]]) -> None:
    batched = generate(model, prompts, stop=STOP, max_new_tokens=20, batch_rows=16)
    assert batched == [reference(model, prompt, 20) for prompt in prompts]
    assert batched == [generate(model, [prompt], stop=STOP, max_new_tokens=20)[0] for prompt in prompts]
    assert len({len(answer) for answer in batched}) > 3, "the rows should end at different steps"


def test_batch_size_does_not_change_answers(model: LlamaForCausalLM, prompts: list[list[int]]) -> None:
    whole = generate(model, prompts, stop=STOP, max_new_tokens=20, batch_rows=30)
    assert whole == generate(model, prompts, stop=STOP, max_new_tokens=20, batch_rows=9)
    assert whole == generate(model, prompts, stop=STOP, max_new_tokens=20, batch_tokens=300)


def test_batches_are_cut_where_padding_costs_more_than_weights(
    model: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    def all_cuts(rows: list[int]) -> Iterator[list[list[int]]]:
        if not rows:
            yield []
        for end in range(1, min(4, len(rows)) + 1):
            for rest in all_cuts(rows[end:]):
                yield [rows[:end], *rest]

    monkeypatch.setattr(module, "_step_columns", lambda model: 40.0)
    draw = python_stream(0, "lengths")
    for _ in range(20):
        lengths = [draw.choice([2, 5, 30, 90]) + draw.randrange(4) for _ in range(9)]

        def cost(cuts: list[list[int]], lengths: list[int] = lengths) -> float:
            return sum(40 + len(rows) * (max(lengths[row] for row in rows) + 7) for rows in cuts)

        found = list(batches(model, lengths, [7] * 9, 4, 10**6))
        in_order = sorted(range(9), key=lambda row: lengths[row])
        assert [row for rows in reversed(found) for row in rows] == in_order
        assert cost(found) == min(map(cost, all_cuts(in_order)))


def test_stream_gives_the_same_tokens(model: LlamaForCausalLM, prompts: list[list[int]]) -> None:
    for sampling in ({}, {"temperature": 0.8, "top_p": 0.9, "seed": 5}):
        expected = generate(model, prompts[:1], stop=STOP, max_new_tokens=20, **sampling)[0]
        assert list(stream(model, prompts[0], stop=STOP, max_new_tokens=20, **sampling)) == expected


def test_context_end_limits_the_answer(model: LlamaForCausalLM) -> None:
    long, full = [9] * 120, [9] * 128
    answers = generate(model, [long, full], stop=[], max_new_tokens=20)
    assert [len(answer) for answer in answers] == [8, 0]
    assert list(stream(model, full, stop=[], max_new_tokens=20)) == []


def test_finished_ends_a_row_and_keeps_its_last_token(model: LlamaForCausalLM, prompts: list[list[int]]) -> None:
    free = generate(model, prompts, stop=[], max_new_tokens=10)
    cut = generate(model, prompts, stop=[], max_new_tokens=10, finished=lambda row, tokens: len(tokens) == row % 10 + 1)
    assert cut == [answer[: row % 10 + 1] for row, answer in enumerate(free)]


def test_sampling_is_reproducible_and_independent_of_batching(
    model: LlamaForCausalLM, prompts: list[list[int]]
) -> None:
    def sample(seed: int, batch_rows: int) -> list[list[int]]:
        return generate(model, prompts, stop=STOP, max_new_tokens=12, temperature=1.0, seed=seed, batch_rows=batch_rows)

    assert sample(3, 64) == sample(3, 5)
    assert sample(3, 64) != sample(4, 64)


def test_sampled_frequencies_follow_the_distribution(model: LlamaForCausalLM) -> None:
    count, prompt = 4000, [9, 10, 11]
    with torch.no_grad():
        wanted = (model(torch.tensor([prompt])).logits[0, -1] / 2).softmax(-1)
    drawn = generate(model, [prompt] * count, stop=[], max_new_tokens=1, temperature=2.0, batch_rows=1000)
    got = Counter(answer[0] for answer in drawn)
    for token in wanted.topk(5).indices.tolist():
        share = float(wanted[token])
        assert abs(got[token] / count - share) < 4 * (share * (1 - share) / count) ** 0.5

    two = wanted.topk(2).indices.tolist()
    for cut in ({"top_k": 2}, {"top_p": float(wanted[two].sum()) - 1e-4}):
        some = generate(model, [prompt] * 200, stop=[], max_new_tokens=1, temperature=2.0, **cut)
        assert {answer[0] for answer in some} == set(two)


def test_model_goes_back_to_training_mode_and_progress_adds_up(
    model: LlamaForCausalLM, prompts: list[list[int]]
) -> None:
    done: list[int] = []
    model.train()
    try:
        generate(model, prompts, stop=STOP, max_new_tokens=5, advance=done.append)
        assert model.training
    finally:
        model.eval()
    assert sum(done) == len(prompts)
