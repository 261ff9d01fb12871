"""Exported models, loaded by plain transformers and compared with what they were made from."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny import byte_tokenizer, tiny_llama
from transformers import AutoModelForCausalLM, AutoTokenizer

from tunesmith.base.errors import UserError
from tunesmith.model.adapters import prepare_method
from tunesmith.serve.export import export_merged
from tunesmith.tokens.rendering import shipped_template

TEMPLATE = shipped_template("alpaca")
# PEFT 0.21 still asks transformers 5.23 by the old name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
IDS = torch.arange(24).view(2, 12)


@pytest.fixture
def trained(tmp_path) -> Path:
    """The folder of a tiny tuned model with all its weights."""
    tokenizer = byte_tokenizer()
    end = tokenizer.eos_token_id
    model = tiny_llama(len(tokenizer), eos_token_id=end, pad_token_id=end)
    model.generation_config.eos_token_id = [end, 3]
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(IDS).logits


def test_a_full_model_is_exported_as_it_is(trained, tmp_path):
    folder = export_merged(trained, tmp_path / "out")
    again = AutoModelForCausalLM.from_pretrained(folder)
    assert torch.equal(logits(again), logits(AutoModelForCausalLM.from_pretrained(trained)))
    assert again.generation_config.eos_token_id == [257, 3]
    assert AutoTokenizer.from_pretrained(folder).chat_template == TEMPLATE


def test_an_adapter_is_merged_into_the_weights(trained, tmp_path):
    base = AutoModelForCausalLM.from_pretrained(trained)
    adapted = get_peft_model(base, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    adapted.save_pretrained(tmp_path / "adapter")
    AutoTokenizer.from_pretrained(trained).save_pretrained(tmp_path / "adapter")
    folder = export_merged(tmp_path / "adapter", tmp_path / "out")
    merged = AutoModelForCausalLM.from_pretrained(folder)
    assert not list(folder.glob("adapter*"))
    assert merged.generation_config.eos_token_id == [257, 3]
    assert not torch.allclose(logits(merged), logits(AutoModelForCausalLM.from_pretrained(trained)), atol=1e-2)
    torch.testing.assert_close(logits(merged), logits(adapted), atol=1e-4, rtol=1e-4)
    assert AutoTokenizer.from_pretrained(folder).chat_template == TEMPLATE

    trained.rename(tmp_path / "moved")
    again = export_merged(tmp_path / "adapter", tmp_path / "again", base=str(tmp_path / "moved"))
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(again)), logits(merged))
    assert str(tmp_path / "moved") in (again / "README.md").read_text()


@pytest.mark.parametrize("method", ["bottleneck", "prompt", "prefix"])
def test_what_can_not_be_merged_is_refused(trained, tmp_path, method):
    adapted = prepare_method(AutoModelForCausalLM.from_pretrained(trained), method)
    adapted.peft_config["default"].base_model_name_or_path = str(trained)
    adapted.save_pretrained(tmp_path / "adapter")
    AutoTokenizer.from_pretrained(trained).save_pretrained(tmp_path / "adapter")
    with pytest.raises(UserError, match=f"method {method} can't be merged.*only lora and qlora"):
        export_merged(tmp_path / "adapter", tmp_path / "out")
    assert not (tmp_path / "out").exists()


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
