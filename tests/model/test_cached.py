"""Generation with the cache that is written in place, against transformers' own `generate`, by architecture."""

from __future__ import annotations

import copy
from itertools import islice
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

import tunesmith.model.cached
from tunesmith.base.random import python_stream
from tunesmith.model.attention import NAME
from tunesmith.model.cache import RowCache
from tunesmith.model.cached import shares_prompts
from tunesmith.model.generate import generate
from tunesmith.model.load import load_base
from tunesmith.pocket import tasks
from tunesmith.tokens.templates import prompt_ids, stop_token_ids

SHAPE: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.5,
    "eos_token_id": 7,
}
CONFIGS = {
    "llama": LlamaConfig(**SHAPE),
    "one window": MistralConfig(**SHAPE, sliding_window=5),
    "windows in some layers": Qwen2Config(**SHAPE, use_sliding_window=True, sliding_window=6, max_window_layers=1),
    "normalised heads": Qwen3Config(**SHAPE, head_dim=16),
    "learned positions": GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=128, eos_token_id=7),
}


def prompts_of(seed: int, count: int = 40, longest: int = 30) -> list[list[int]]:
    draw = python_stream(seed, "prompts")
    return [[draw.randrange(8, 64) for _ in range(draw.randint(1, longest))] for _ in range(count)]


def reference(model: PreTrainedModel, prompt: list[int]) -> list[int]:
    ids = torch.tensor([prompt])
    out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=15, pad_token_id=0)
    new: list[int] = out[0, len(prompt) :].tolist()
    return new[: new.index(7)] if 7 in new else new


@pytest.mark.parametrize("name", CONFIGS)
def test_answers_are_those_of_transformers(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(len(name))
    model = AutoModelForCausalLM.from_config(CONFIGS[name], attn_implementation=NAME).eval()
    if name == "learned positions":  # its weights are drawn too small for clear preferences
        for weight in model.parameters():
            weight.data.mul_(4)
    stock = copy.deepcopy(model)
    stock.set_attn_implementation("eager")
    assert shares_prompts(model)
    monkeypatch.setattr(tunesmith.model.cached, "READ_TOKENS", 64)  # several packed rows of prompts in a batch
    prompts = prompts_of(len(name))
    answers = generate(model, prompts, stop=[7], max_new_tokens=15, batch_rows=16)
    assert answers == [reference(stock, prompt) for prompt in prompts]
    assert len({tuple(answer[:2]) for answer in answers}) > 10, "too few different answers to prove anything"


def test_rows_move_as_asked_and_only_what_was_written_counts() -> None:
    cache = RowCache(layers=2, rows=6, columns=9, blank=4)
    torch.manual_seed(0)
    cache.rows = 4
    written = torch.zeros(4, 2, 0, 3)
    for count in (4, 1):
        new = torch.randn(4, 2, count, 3)
        for layer in range(2):
            keys, values = cache.update(new, -new, layer)
        written = torch.cat([written, new], 2)
        cache.length += count
        assert torch.equal(keys, written) and torch.equal(values, -written)
    for origins in ([0, 3, 2], [2, 2, 1, 0, 0, 0], [5, 0]):
        cache.reorder_cache(torch.tensor(origins))
        written = written[origins]
        new = torch.randn(len(origins), 2, 1, 3)
        keys, values = cache.update(new, -new, 0)
        assert torch.equal(keys, torch.cat([written, new], 2)) and torch.equal(values, -torch.cat([written, new], 2))
        cache.update(new, -new, 1)
        written, cache.length = torch.cat([written, new], 2), cache.length + 1


@pytest.mark.slow
def test_500_prompts_in_batches_are_answered_as_one_at_a_time() -> None:
    """But where the two best logits lie within 1e-4 of each other, which rounding may turn."""
    torch.set_num_threads(1)
    loaded = load_base("pocket")
    rows = list(islice(tasks.conversations(0, 4000), 0, 4000, 8))
    prompts = [prompt_ids(row.prompt, loaded.tokenizer) for row in rows]
    assert len(prompts) == 500 and len({len(prompt) for prompt in prompts}) > 20, "lengths should be mixed"
    given = {"stop": stop_token_ids(loaded.tokenizer), "max_new_tokens": 8}
    batched = generate(loaded.model, prompts, **given)
    alone = [generate(loaded.model, [prompt], **given)[0] for prompt in prompts]
    for prompt, one, other in zip(prompts, batched, alone, strict=True):
        if one != other:
            pairs = enumerate(zip([*one, -1], [*other, -1], strict=False))
            same = next(place for place, (a, b) in pairs if a != b)
            with torch.no_grad():
                first, second = loaded.model(torch.tensor([prompt + one[:same]])).logits[0, -1].topk(2).values
            assert float(first - second) < 1e-4
    assert sum(one == other for one, other in zip(batched, alone, strict=True)) > 480
