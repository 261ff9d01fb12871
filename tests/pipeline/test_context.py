"""Rows longer than a base's context: told with the numbers, refused where there are no positions for them."""

import pytest
from transformers import BloomConfig, GPT2Config, LlamaConfig, OPTConfig, T5Config

from tunesmith.base.errors import UserError
from tunesmith.pipeline.context import on_context
from tunesmith.recipe import load_recipe

SMALL = {"vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
BASES = {
    "llama": LlamaConfig(**SMALL, intermediate_size=32, max_position_embeddings=64),
    "gpt2": GPT2Config(vocab_size=100, n_embd=32, n_layer=1, n_head=2, n_positions=64),
    "opt": OPTConfig(**SMALL, ffn_dim=32, word_embed_proj_dim=32, max_position_embeddings=64),
    "bloom": BloomConfig(vocab_size=100, hidden_size=32, n_layer=1, n_head=2),
    "t5": T5Config(vocab_size=100, d_model=32, d_kv=8, num_heads=4, d_ff=48, num_layers=1),
}


@pytest.fixture
def load(tmp_path):
    def load(kind, *overrides):
        BASES[kind].save_pretrained(tmp_path / kind)
        text = f"base: {tmp_path / kind}\ndata: {{sources: [{{pocket: 60, name: small}}]}}\n"
        (tmp_path / "recipe.yaml").write_text(text)
        return load_recipe(str(tmp_path / "recipe.yaml"), overrides).recipe

    return load


def length(tokens):
    return f"train.max_length={tokens}"


@pytest.mark.parametrize("kind", ["llama", "gpt2", "opt"])
def test_what_fits_is_not_spoken_of(load, kind):
    assert not list(on_context(load(kind, length(64)), 64))
    assert not list(on_context(load(kind, length(44), "train.method=prefix"), 44))  # with 20 virtual tokens


@pytest.mark.parametrize("kind", ["bloom", "t5"])
def test_bases_without_a_limit_take_any_length(load, kind):
    assert not list(on_context(load(kind, length(10_000)), 9_000))


@pytest.mark.parametrize("kind", ["llama", "gpt2", "opt"])
def test_a_limit_above_the_context_is_told_even_if_no_row_is_that_long(load, kind):
    (found,) = on_context(load(kind, length(65)), 64)
    assert "max_length 65;" in found.what and "made for 64" in found.what and "longest has 64 tokens" in found.what
    assert found.remedy == "Set train.max_length: 64."


def test_rotary_positions_that_were_never_learned_are_warned_of(load):
    (found,) = on_context(load("llama", length(80)), 70)
    assert "The longest row has 70 tokens" in found.what and "Set train.max_length: 64, or extend" in found.remedy
    (unknown,) = on_context(load("llama", length(80)), None)
    assert "Longer rows would be trained" in unknown.what


def test_virtual_tokens_take_room(load):
    (found,) = on_context(load("llama", length(50), "train.method=prompt", "train.prompt.tokens=15"), 50)
    assert "max_length 50 and 15 virtual tokens before it are 65 positions" in found.what
    assert "Set train.max_length: 49" in found.remedy
    (found,) = on_context(load("llama", length(50), "train.method=prompt", "train.prompt.tokens=60"), 50)
    assert "fewer virtual tokens" in found.remedy


@pytest.mark.parametrize("kind", ["gpt2", "opt"])
def test_positions_without_an_embedding_are_refused(load, kind):
    with pytest.raises(UserError, match=r"A row has 65 tokens.*Set train.max_length: 64"):
        list(on_context(load(kind, length(80)), 65))
