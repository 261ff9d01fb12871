"""Likelihoods of continuations against the logits of transformers, each continuation behind its prompt alone."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from tiny import tiny_llama, tiny_t5
from transformers import MambaConfig, MambaForCausalLM

import tunesmith.model.cached
from tunesmith.base.random import python_stream
from tunesmith.model.adapters import prepare_method
from tunesmith.model.cached import shares_prompts
from tunesmith.model.likelihood import Likelihood, likelihoods


def drawn(seed: int, count: int = 25) -> tuple[list[list[int]], list[list[list[int]]]]:
    draw = python_stream(seed, "likelihood")

    def ids(longest: int) -> list[int]:
        return [draw.randrange(40) for _ in range(draw.randint(1, longest))]

    return [ids(20) for _ in range(count)], [[ids(6) for _ in range(draw.randint(1, 5))] for _ in range(count)]


@torch.no_grad()
def alone(model: Any, prompt: list[int], after: list[int]) -> Likelihood:
    if getattr(model.config, "is_encoder_decoder", False):
        given = {"input_ids": torch.tensor([prompt]), "decoder_input_ids": torch.tensor([[0, *after[:-1]]])}
    else:
        given = {"input_ids": torch.tensor([prompt + after[:-1]])}
    likely = model(**given).logits[0, -len(after) :].log_softmax(-1)
    best = likely.argmax(-1).tolist() == after
    return Likelihood(float(likely[range(len(after)), after].double().sum()), len(after), best)


def check(model: Any, stock: Any, seed: int, **options: Any) -> None:
    prompts, continuations = drawn(seed)
    likeliest = (
        [stock(input_ids=torch.tensor([prompt])).logits[0, -1].argmax().item() for prompt in prompts]
        if options.pop("with_best", True)
        else []
    )
    for some, token in zip(continuations, likeliest, strict=False):
        some.append([token])
    done: list[int] = []
    found = likelihoods(model, prompts, continuations, advance=done.append, **options)
    assert sum(done) == len(prompts)
    for prompt, some, likely in zip(prompts, continuations, found, strict=True):
        expected = [alone(stock, prompt, one) for one in some]
        assert [(one.tokens, one.greedy) for one in likely] == [(one.tokens, one.greedy) for one in expected]
        assert [one.log for one in likely] == pytest.approx([one.log for one in expected], rel=2e-5, abs=2e-5)
    assert not likeliest or all(likely[-1].greedy for likely in found)


def test_prompts_are_shared_without_a_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tunesmith.model.cached, "READ_TOKENS", 48)
    model = tiny_llama(40, seed=4, initializer_range=0.4).eval()
    assert shares_prompts(model)
    stock = copy.deepcopy(model)
    stock.set_attn_implementation("eager")
    with torch.no_grad():
        check(model, stock, 0)
        check(model, stock, 1, batch_rows=7)
        check(model, stock, 2, batch_tokens=60)


def test_models_that_cannot_share_give_the_same() -> None:
    model = tiny_llama(40, seed=5, initializer_range=0.4, attn_implementation="eager").eval()
    assert not shares_prompts(model)
    torch.manual_seed(0)
    recurrent = MambaForCausalLM(MambaConfig(hidden_size=32, num_hidden_layers=2, vocab_size=40, state_size=4)).eval()
    with torch.no_grad():
        check(model, model, 3)
        check(recurrent, recurrent, 4)


def test_an_encoder_decoder_reads_the_prompt_and_produces_the_continuation() -> None:
    model = tiny_t5(40, seed=6, initializer_factor=3.0)
    check(model, model, 5, with_best=False)


@pytest.mark.parametrize("method", ["prompt", "prefix", "lora"])
def test_what_is_trained_beside_the_model_counts(method: str) -> None:
    model = prepare_method(tiny_llama(40, seed=7, initializer_range=0.4), method).eval()
    torch.manual_seed(1)
    for name, weight in model.named_parameters():
        if "prompt_encoder" in name or "lora_B" in name:
            weight.data.normal_(0, 0.5)
    prompts, continuations = drawn(6, count=8)
    found = likelihoods(model, prompts, continuations)
    for prompt, some, likely in zip(prompts, continuations, found, strict=True):
        for one, result in zip(some, likely, strict=True):
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([prompt + one[:-1]])).logits[0, -len(one) :]
            expected = logits.log_softmax(-1)[range(len(one)), one].double().sum()
            assert result.log == pytest.approx(float(expected), rel=2e-5, abs=2e-5)
