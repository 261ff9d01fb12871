"""Exported models, loaded by plain transformers and compared with what they were made from."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tunesmith.base.errors import UserError
from tunesmith.serve.export import export_merged
from tunesmith.tokens.templates import shipped_template

TEMPLATE = shipped_template("alpaca")
# PEFT 0.21 still asks transformers 5.23 by the old name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
IDS = torch.arange(24).view(2, 12)


@pytest.fixture
def trained(tmp_path) -> Path:
    """The folder of a tiny tuned model with all its weights."""
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        vocab_size=257,
        eos_token_id=256,
        pad_token_id=256,
    )
    model = LlamaForCausalLM(config)
    model.generation_config.eos_token_id = [256, 3]
    folder = tmp_path / "model"
    model.save_pretrained(folder)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({symbol: i for i, symbol in enumerate(alphabet)}, []))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>", pad_token="<end>")
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(IDS).logits


def test_a_full_model_is_exported_as_it_is(trained, tmp_path):
    folder = export_merged(trained, tmp_path / "out")
    again = AutoModelForCausalLM.from_pretrained(folder)
    assert torch.equal(logits(again), logits(AutoModelForCausalLM.from_pretrained(trained)))
    assert again.generation_config.eos_token_id == [256, 3]
    assert AutoTokenizer.from_pretrained(folder).chat_template == TEMPLATE


def test_an_adapter_is_merged_into_the_weights(trained, tmp_path):
    base = AutoModelForCausalLM.from_pretrained(trained)
    adapted = get_peft_model(base, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    adapted.save_pretrained(tmp_path / "adapter")
    AutoTokenizer.from_pretrained(trained).save_pretrained(tmp_path / "adapter")
    folder = export_merged(tmp_path / "adapter", tmp_path / "out")
    merged = AutoModelForCausalLM.from_pretrained(folder)
    assert not list(folder.glob("adapter*"))
    assert merged.generation_config.eos_token_id == [256, 3]
    assert not torch.allclose(logits(merged), logits(AutoModelForCausalLM.from_pretrained(trained)), atol=1e-2)
    torch.testing.assert_close(logits(merged), logits(adapted), atol=1e-4, rtol=1e-4)
    assert AutoTokenizer.from_pretrained(folder).chat_template == TEMPLATE


def test_nothing_is_overwritten(trained, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        export_merged(trained, tmp_path / "out")
    with pytest.raises(UserError, match="not empty"):
        export_merged(trained, tmp_path / "out/mine.txt")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_without_a_trained_model(tmp_path):
    with pytest.raises(UserError, match="no trained model yet"):
        export_merged(tmp_path / "run/model", tmp_path / "out")
    assert not (tmp_path / "out").exists()
