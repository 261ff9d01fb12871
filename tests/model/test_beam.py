"""Beam search against transformers' own, token for token."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from tiny import tiny_llama, tiny_t5

from tunesmith.base.random import python_stream
from tunesmith.model.beam import beam_search
from tunesmith.model.generate import generate

STOP = (5, 7)


def prompts_of(seed: int, count: int = 12) -> list[list[int]]:
    draw = python_stream(seed, "prompts")
    return [[draw.randrange(8, 40) for _ in range(draw.randint(1, 14))] for _ in range(count)]


def reference(model: Any, prompt: list[int], beams: int, penalty: float, limit: int) -> list[int]:
    ids = torch.tensor([prompt])
    out = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        num_beams=beams,
        do_sample=False,
        length_penalty=penalty,
        early_stopping=False,
        max_new_tokens=limit,
        eos_token_id=list(STOP),
        pad_token_id=0,
    )
    new: list[int] = out[0, 1 if model.config.is_encoder_decoder else len(prompt) :].tolist()
    return next((new[:place] for place, token in enumerate(new) if token in STOP), new)


@pytest.mark.parametrize(("beams", "penalty", "spread"), [(2, 1.0, 0.5), (3, 0.0, 0.3), (4, 1.5, 0.5), (5, -0.5, 0.4)])
def test_answers_are_those_of_transformers(beams: int, penalty: float, spread: float) -> None:
    model = tiny_llama(40, seed=beams, initializer_range=spread, bos_token_id=1, pad_token_id=0).eval()
    stock = copy.deepcopy(model)
    stock.set_attn_implementation("eager")
    prompts = prompts_of(beams)
    found = beam_search(
        model, prompts, beams=beams, stop=STOP, max_new_tokens=12, length_penalty=penalty, batch_rows=5 * beams
    )
    assert found == [reference(stock, prompt, beams, penalty, 12) for prompt in prompts]
    greedy = generate(model, prompts, stop=STOP, max_new_tokens=12)
    assert found != greedy, "beams should find other answers than greedy does"
    assert penalty > 1 or len({len(answer) for answer in found}) > 1


def test_an_encoder_decoder_too() -> None:
    model = tiny_t5(40, seed=3, initializer_factor=3.0)
    prompts = prompts_of(9)
    found = beam_search(model, prompts, beams=3, stop=STOP, max_new_tokens=10)
    assert found == [reference(model, prompt, 3, 1.0, 10) for prompt in prompts]


def test_one_beam_is_greedy_and_the_context_limits_answers() -> None:
    model = tiny_llama(40, seed=1, initializer_range=0.5, max_position_embeddings=32).eval()
    prompts = [*prompts_of(4), [9] * 30, [9] * 32]
    found = beam_search(model, prompts, beams=1, stop=STOP, max_new_tokens=12)
    assert found == generate(model, prompts, stop=STOP, max_new_tokens=12)
    assert len(found[-2]) <= 2 and found[-1] == []


def test_more_beams_than_a_small_vocabulary_has_tokens() -> None:
    model = tiny_llama(8, seed=2, initializer_range=0.5).eval()
    done: list[int] = []
    found = beam_search(model, [[1, 2], [3]], beams=6, stop=[7], max_new_tokens=3, advance=done.append)
    assert sum(done) == 2 and all(len(answer) <= 3 for answer in found)


def test_finished_ends_paths_as_a_stop_token_does_but_keeps_the_last_token() -> None:
    model = tiny_llama(40, seed=3, initializer_range=0.5).eval()
    prompts = prompts_of(5)
    given = {"beams": 3, "max_new_tokens": 12}
    stopped = beam_search(model, prompts, stop=STOP, **given)
    ended = beam_search(model, prompts, stop=STOP[:1], finished=lambda _, tokens: tokens[-1] == STOP[1], **given)
    assert [answer[:-1] if answer[-1:] == [STOP[1]] else answer for answer in ended] == stopped
    assert any(answer[-1:] == [STOP[1]] for answer in ended)
