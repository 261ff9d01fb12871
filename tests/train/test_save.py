"""What is saved loads with plain Transformers and PEFT, and says the same."""

import pytest
import torch
from peft import PeftModel
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedTokenizerFast

from tunesmith.model.adapters import prepare_method
from tunesmith.model.attention import packs
from tunesmith.model.load import load_base, load_trained
from tunesmith.train.save import save_model

IDS = torch.arange(12)[None]


@pytest.fixture
def tokenizer():
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({symbol: i for i, symbol in enumerate(alphabet)}, []))
    found = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=alphabet[0], pad_token=alphabet[1])
    found.chat_template = "{{ messages[0]['content'] }}"
    return found


def test_a_full_model(build, tokenizer, tmp_path):
    model = build().eval()
    save_model(model, tokenizer, tmp_path / "model", stop_ids=[7])
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    assert plain.config._attn_implementation == "sdpa"
    torch.testing.assert_close(plain(IDS).logits, model(IDS).logits)
    config = GenerationConfig.from_pretrained(tmp_path / "model")
    assert config.eos_token_id == [7, 2] and config.pad_token_id == 1
    assert AutoTokenizer.from_pretrained(tmp_path / "model").chat_template == tokenizer.chat_template
    assert not list((tmp_path / "model").glob("*.bin"))
    assert packs(load_trained(tmp_path / "model").model)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # PEFT 0.21 on Transformers 5.23
def test_an_adapter(build, tokenizer, tmp_path):
    build().save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    base = load_base(str(tmp_path / "base"))
    model = prepare_method(base.model, "lora", rank=4)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    said = model.eval()(IDS).logits
    save_model(model, base.tokenizer, tmp_path / "model", stop_ids=[7])
    assert sum(p.stat().st_size for p in (tmp_path / "model").glob("*.safetensors")) < 40_000
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tmp_path / "base"), tmp_path / "model")
    torch.testing.assert_close(plain.eval()(IDS).logits, said)
    loaded = load_trained(tmp_path / "model")
    torch.testing.assert_close(loaded.model(IDS).logits, said)
    assert loaded.tokenizer.chat_template == tokenizer.chat_template
    assert loaded.model.generation_config.eos_token_id == [7, 2]
