"""Loading models, adapters, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import Gemma2Config, Gemma2ForCausalLM, MambaConfig, MambaForCausalLM, PreTrainedTokenizerFast

from tunesmith.base.errors import UserError
from tunesmith.model.adapters import merge, prepare_method
from tunesmith.model.attention import packs
from tunesmith.model.generate import generate
from tunesmith.model.load import load_base, load_tokenizer, parameter_counts
from tunesmith.model.losses import PackedRow, supervised_loss
from tunesmith.tokens.batches import make_batch
from tunesmith.tokens.encoded import Encoded

IDS = torch.arange(12)[None]


def save(model, folder: Path) -> Path:
    model.save_pretrained(folder)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({symbol: i for i, symbol in enumerate(alphabet)}, []))
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=alphabet[0]).save_pretrained(folder)
    return folder


def test_a_directory_loads_with_the_saved_weights(model, tmp_path):
    loaded = load_base(str(save(model, tmp_path)))
    assert packs(loaded.model) and loaded.path == tmp_path and not loaded.model.training
    assert all(torch.equal(p, dict(model.named_parameters())[name]) for name, p in loaded.model.named_parameters())
    assert load_base(str(tmp_path), dtype="bfloat16").model.dtype == torch.bfloat16


def test_attention_that_cannot_be_packed_falls_back_and_says_so(tmp_path, capsys):
    config = Gemma2Config(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        vocab_size=300,
    )
    loaded = load_base(str(save(Gemma2ForCausalLM(config), tmp_path / ":dog:")))
    assert not packs(loaded.model)
    said = capsys.readouterr().err
    assert "similar length" in said and ":dog:" in said  # names are shown as they are, not as emoji


def test_a_recurrent_model_is_computed_in_padded_batches_and_answers(tmp_path, capsys):
    torch.manual_seed(0)
    config = MambaConfig(hidden_size=32, num_hidden_layers=2, vocab_size=300, state_size=4, initializer_range=0.5)
    plain = MambaForCausalLM(config).eval()
    loaded = load_base(str(save(plain, tmp_path))).model
    assert not packs(loaded) and "padded at their ends" in capsys.readouterr().err
    documents = [Encoded(np.arange(1, n + 1, dtype=np.int32), np.arange(n) > n // 2) for n in (9, 8, 3)]
    row = PackedRow.of(make_batch(documents, range(3)), "cpu")
    expected = []
    for document in documents:
        ids = torch.from_numpy(np.array(document.ids)).long()[None]
        losses = F.cross_entropy(plain(ids).logits[0, :-1], ids[0, 1:], reduction="none")
        expected.append(losses[torch.from_numpy(np.array(document.supervised[1:]))])
    torch.testing.assert_close(supervised_loss(loaded, row), torch.cat(expected).sum())

    prompts = [[3, 4, 5], [7], [9, 8]]
    answers = []
    for prompt in prompts:
        out = plain.generate(
            torch.tensor([prompt]), do_sample=False, max_new_tokens=6, eos_token_id=None, pad_token_id=0
        )
        answers.append(out[0, len(prompt) :].tolist())
    assert generate(loaded, prompts, stop=[], max_new_tokens=6) == answers


@pytest.mark.parametrize("name", ["./nowhere", "/no/such/model", "a/b/c"])
def test_a_missing_directory_is_named_with_what_to_give(name):
    with pytest.raises(UserError, match=r"there is no such directory\. Give"):
        load_base(name)


def test_a_directory_without_a_model_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"no config\.json"):
        load_base(str(tmp_path))


def test_a_model_without_a_tokenizer_is_refused(model, tmp_path):
    model.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="no tokenizer"):
        load_tokenizer(str(tmp_path))


def test_an_unknown_type_is_refused(model, tmp_path):
    with pytest.raises(UserError, match="float33"):
        load_base(str(save(model, tmp_path)), dtype="float33")


def test_full_trains_every_weight(model):
    total, trained = parameter_counts(prepare_method(model, "full"))
    assert total == trained == sum(p.numel() for p in model.parameters())


def test_lora_trains_two_thin_matrices_a_layer_and_starts_where_the_base_is(model):
    before = model(IDS).logits
    adapted = prepare_method(model, "lora", rank=4, targets=["q_proj", "down_proj"])
    _, trained = parameter_counts(adapted)
    assert trained == 2 * (4 * (32 + 32) + 4 * (48 + 32))
    assert torch.equal(adapted(IDS).logits, before)


def test_lora_draws_by_its_seed_alone(model):
    import copy

    def drawn(seed, noise):
        torch.manual_seed(noise)
        adapted = prepare_method(copy.deepcopy(model), "lora", seed=seed)
        return torch.cat([p.flatten() for p in adapted.parameters() if p.requires_grad])

    assert torch.equal(drawn(1, 1), drawn(1, 2)) and not torch.equal(drawn(1, 1), drawn(2, 1))


def test_lora_targets_that_do_not_exist_are_named_with_those_that_do(model):
    with pytest.raises(UserError, match=r"query: this model.*It has .*q_proj"):
        prepare_method(model, "lora", targets=["q_proj", "query"])


def test_merging_keeps_what_the_model_says(model):
    adapted = prepare_method(model, "lora", rank=4)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    said = adapted.eval()(IDS).logits
    merged = merge(adapted)
    torch.testing.assert_close(merged(IDS).logits, said)
    assert merge(merged) is merged
