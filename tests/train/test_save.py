"""What is saved loads with plain Transformers and PEFT, and says the same."""

import json

import pytest
import torch
from peft import PeftModel
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedTokenizerFast

from tunesmith import __version__
from tunesmith.base.errors import TunesmithError
from tunesmith.model.adapters import prepare_method
from tunesmith.model.attention import packs
from tunesmith.model.generate import generate
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
    save_model(model, tokenizer, tmp_path / "model", base="owner/base", stop_ids=[7])
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    assert plain.config._attn_implementation == "sdpa"
    torch.testing.assert_close(plain(IDS).logits, model(IDS).logits)
    config = GenerationConfig.from_pretrained(tmp_path / "model")
    assert config.eos_token_id == [7, 2] and config.pad_token_id == 1
    assert AutoTokenizer.from_pretrained(tmp_path / "model").chat_template == tokenizer.chat_template
    assert not list((tmp_path / "model").glob("*.bin"))
    assert packs(load_trained(tmp_path / "model").model)
    card = (tmp_path / "model/README.md").read_text()
    assert "library_name: transformers" in card and f"Tunesmith {__version__} from the base model `owner/base`" in card
    assert "LoRA" not in card and f"`{tokenizer.convert_ids_to_tokens(7)}`" in card


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
    save_model(model, base.tokenizer, tmp_path / "model", base=str(tmp_path / "base"), stop_ids=[7])
    assert sum(p.stat().st_size for p in (tmp_path / "model").glob("*.safetensors")) < 40_000
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tmp_path / "base"), tmp_path / "model")
    torch.testing.assert_close(plain.eval()(IDS).logits, said)
    loaded = load_trained(tmp_path / "model")
    torch.testing.assert_close(loaded.model(IDS).logits, said)
    assert loaded.tokenizer.chat_template == tokenizer.chat_template
    assert loaded.model.generation_config.eos_token_id == [7, 2]
    card = (tmp_path / "model/README.md").read_text()
    assert "library_name: peft" in card and "LoRA" in card and "[More Information Needed]" not in card

    (tmp_path / "base").rename(tmp_path / "moved")
    moved = load_trained(tmp_path / "model", base=str(tmp_path / "moved"))
    torch.testing.assert_close(moved.model(IDS).logits, said)


METHODS = {
    "lora": ({"rank": 4, "rslora": True, "dora": True}, "a LoRA adapter"),
    "bottleneck": ({"size": 8}, "`import tunesmith.model.bottleneck` before"),
    "prompt": ({"tokens": 4}, "prompt tuning"),
    "p_tuning": ({"tokens": 4, "width": 8}, "p-tuning"),
    "prefix": ({"tokens": 4}, "prefix tuning"),
    "prefix_projected": ({"tokens": 4, "width": 8}, "prefix tuning"),
}


@pytest.mark.parametrize("method", METHODS)
def test_what_every_method_saves_is_loaded_by_peft_and_by_us(build, tokenizer, tmp_path, method):
    values, told = METHODS[method]
    build().save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    base = load_base(str(tmp_path / "base"))
    start = base.model(IDS).logits.detach()
    model = prepare_method(base.model, method.removesuffix("_projected"), **values)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape) * 0.1)
    said = model.eval()(IDS).logits.detach()
    assert said.shape[1] != start.shape[1] or not torch.allclose(said, start, atol=1e-2)
    save_model(model, base.tokenizer, tmp_path / "model", base=str(tmp_path / "base"), stop_ids=[7])
    assert torch.equal(model(IDS).logits, said), "saving must not change the model"

    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tmp_path / "base"), tmp_path / "model")
    torch.testing.assert_close(plain.eval()(IDS).logits, said)
    loaded = load_trained(tmp_path / "model").model
    torch.testing.assert_close(loaded(IDS).logits, said)
    prompts = [[5, 9, 11], [3]]
    assert generate(loaded, prompts, stop=[], max_new_tokens=5) == generate(model, prompts, stop=[], max_new_tokens=5)
    config = GenerationConfig.from_pretrained(tmp_path / "model")
    assert config.eos_token_id == [7, 2]
    card = (tmp_path / "model/README.md").read_text()
    assert told in card and "[More Information Needed]" not in card
    assert not list((tmp_path / "model").glob("*.bin"))


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_an_adapter_on_the_pocket_model_survives_a_move_of_the_package(tmp_path):
    base = load_base("pocket")
    model = prepare_method(base.model, "lora", rank=2)
    save_model(model, base.tokenizer, tmp_path / "model", base="pocket", stop_ids=[base.tokenizer.eos_token_id])
    saved = json.loads((tmp_path / "model/adapter_config.json").read_text())
    assert saved["base_model_name_or_path"] == "pocket"
    torch.testing.assert_close(load_trained(tmp_path / "model").model(IDS).logits, model.eval()(IDS).logits)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (
            {"do_sample": False, "temperature": 0.6, "repetition_penalty": 1.1},
            {"do_sample": False, "repetition_penalty": 1.1},
        ),
        ({"temperature": 0.6, "top_k": 5, "min_p": 0.1}, {}),
        ({"do_sample": True, "temperature": 0.6, "top_p": 0.9}, {"do_sample": True, "temperature": 0.6, "top_p": 0.9}),
        ({"early_stopping": True, "length_penalty": 2.0, "pad_token_id": -1}, {}),
    ],
    ids=["greedy", "unsaid", "sampled", "contradictory"],
)
@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_any_generation_config_of_a_base_can_be_saved(build, tokenizer, tmp_path, given, kept, method):
    build().save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    (tmp_path / "base/generation_config.json").write_text(json.dumps({"eos_token_id": 2} | given))
    base = load_base(str(tmp_path / "base"))
    model = prepare_method(base.model, method)
    save_model(model, base.tokenizer, tmp_path / "model", base=str(tmp_path / "base"), stop_ids=[7])
    saved = json.loads((tmp_path / "model/generation_config.json").read_text())
    assert saved.pop("eos_token_id") == [7, 2] and saved.pop("pad_token_id") == 1
    assert {name: value for name, value in saved.items() if name in given} == kept


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda folder: (folder / "chat_template.jinja").write_text("Another."), "chat template and token ids"),
        (lambda folder: (folder / "generation_config.json").write_text('{"eos_token_id": 2}'), "stop tokens"),
        (lambda folder: _add_token(folder), "added tokens"),
    ],
    ids=["template", "stop", "token"],
)
def test_what_reads_back_otherwise_is_not_kept(build, tokenizer, tmp_path, change, named):
    def save(folder, **_):
        files = type(tokenizer).save_pretrained(tokenizer, folder)
        change(folder)
        return files

    model = build()
    save_model(model, tokenizer, tmp_path / "model", base="owner/base", stop_ids=[7])
    before = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    tokenizer.save_pretrained = save
    with pytest.raises(TunesmithError, match=f"its {named}.* would differ from those of the training"):
        save_model(model, tokenizer, tmp_path / "model", base="owner/base", stop_ids=[7])
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def _add_token(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<more>"])
    tokenizer.save_pretrained(folder)


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages[0]['content'] }}\r\n",
        {"default": "{{ messages[0]['content'] }}\n"},
        {"default": "a", "tool_use": "b"},
    ],
    ids=["line_ends", "one_by_name", "two_by_name"],
)
def test_a_template_that_is_written_otherwise_but_means_the_same_is_kept(build, tokenizer, tmp_path, template):
    tokenizer.chat_template = template
    assert save_model(build(), tokenizer, tmp_path / "model", base="owner/base", stop_ids=[7]).is_dir()
