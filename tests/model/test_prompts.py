"""Virtual tokens: losses, gradients and answers against PEFT's own forward and generate, one document at a time."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny import tiny_llama
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    MambaConfig,
    MambaForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from tunesmith.base.errors import UserError
from tunesmith.model.adapters import prepare_method
from tunesmith.model.attention import NAME, packs
from tunesmith.model.generate import generate, new_tokens_limit, stream
from tunesmith.model.load import parameter_counts
from tunesmith.model.losses import PackedRow, supervised_loss, token_losses
from tunesmith.model.prompts import virtual_tokens
from tunesmith.tokens.batches import make_batch
from tunesmith.tokens.encoded import Encoded

SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 61}
METHODS = {
    "prompt": {"tokens": 5},
    "p_tuning": {"tokens": 5, "width": 12},
    "prefix": {"tokens": 5},
    "prefix_projected": {"tokens": 5, "width": 12},
}


def prepared(model, method, **changes):
    values = METHODS[method] | changes
    return prepare_method(model, method.removesuffix("_projected"), seed=1, **values)


def sequences(lengths, seed=0):
    rng = np.random.default_rng(seed)
    drawn = []
    for length in lengths:
        supervised = rng.random(length) < 0.4
        supervised[0], supervised[-1] = False, True
        drawn.append(Encoded(rng.integers(0, 61, length).astype(np.int32), supervised))
    return drawn


def by_peft(model, document):
    """The losses of the supervised tokens of one document, by PEFT's forward and plain cross entropy."""
    ids = torch.from_numpy(np.array(document.ids)).long()[None]
    logits = model(input_ids=ids, use_cache=False).logits[0, -ids.shape[1] :]
    losses = F.cross_entropy(logits[:-1], ids[0, 1:], reduction="none")
    return losses[torch.from_numpy(np.array(document.supervised[1:]))]


def gradients(model, loss):
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.autograd.grad(loss, trained)


def check_equal_to_peft(model):
    documents = sequences([7, 2, 12, 11, 9, 12])
    row = PackedRow.of(make_batch(documents, range(len(documents))), "cpu")
    expected = [by_peft(model, document) for document in documents]
    torch.testing.assert_close(token_losses(model, row), torch.cat(expected), atol=1e-5, rtol=1e-5)
    loss, total = supervised_loss(model, row, chunk=4), torch.cat(expected).sum()
    torch.testing.assert_close(loss, total, atol=1e-5, rtol=1e-5)
    for ours, theirs in zip(gradients(model, loss), gradients(model, total), strict=True):
        assert theirs.any()
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_losses_and_gradients_are_those_of_peft_one_document_at_a_time(model, method):
    check_equal_to_peft(prepared(model, method))


@pytest.mark.parametrize("method", ["prompt", "prefix"])
def test_so_they_are_with_learned_positions_heads_of_another_size_and_no_packing(method):
    for build in (
        lambda: GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=61, attn_implementation=NAME)),
        lambda: Qwen3ForCausalLM(Qwen3Config(**SMALL, num_key_value_heads=2, head_dim=16, attn_implementation=NAME)),
        lambda: Gemma2ForCausalLM(
            Gemma2Config(**SMALL, num_key_value_heads=2, head_dim=8, attn_implementation="eager", sliding_window=4096)
        ),
    ):
        torch.manual_seed(0)
        check_equal_to_peft(prepared(build().eval(), method))


@pytest.mark.parametrize("method", METHODS)
def test_another_document_changes_nothing(model, method):
    prepared_ = prepared(model, method)
    documents = sequences([6, 9, 6])
    others = [sequences([6], seed=5)[0], documents[1], sequences([6], seed=6)[0]]

    def losses(documents):
        found = token_losses(prepared_, PackedRow.of(make_batch(documents, range(3)), "cpu"))
        counts = [int(document.supervised.sum()) for document in documents]
        return torch.split(found, counts)

    ours, theirs = losses(documents), losses(others)
    assert torch.equal(ours[1], theirs[1]) and not torch.equal(ours[0], theirs[0])


def test_a_prompt_starts_from_words_and_a_prefix_as_if_they_stood_there(model):
    """Starting from tokens, both give the losses that the base model has after those tokens."""

    class Words:
        all_special_ids = ()

        def __call__(self, text, add_special_tokens):
            return {"input_ids": [int(word) for word in text.split()]}

    document = sequences([9])[0]
    base = copy.deepcopy(model)
    for start, words in (
        ("7 3 11 20 5", [7, 3, 11, 20, 5]),
        ("7 3", [7, 3, 7, 3, 7]),
        ("1 2 3 4 5 6", [1, 2, 3, 4, 5]),
    ):
        ids = torch.tensor([[*words, *document.ids.tolist()]])
        losses = F.cross_entropy(base(ids).logits[0, 5:-1], ids[0, 6:], reduction="none")
        expected = losses[torch.from_numpy(np.array(document.supervised[1:]))]
        for method in ("prompt", "prefix"):
            tuned = prepared(copy.deepcopy(base), method, start=start, tokenizer=Words())
            found = token_losses(tuned, PackedRow.of(make_batch([document], [0]), "cpu"))
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    with pytest.raises(UserError, match=r"prompt\.start ' ' holds no token"):
        prepared(base, "prompt", start=" ", tokenizer=Words())


def test_the_seed_alone_decides_the_start(model):
    def drawn(method, seed, noise):
        torch.manual_seed(noise)
        values = METHODS[method]
        tuned = prepare_method(copy.deepcopy(model), method.removesuffix("_projected"), seed=seed, **values)
        return torch.cat([p.flatten() for p in tuned.parameters() if p.requires_grad])

    for method in METHODS:
        assert torch.equal(drawn(method, 1, 1), drawn(method, 1, 2)), method
        assert not torch.equal(drawn(method, 1, 1), drawn(method, 2, 1)), method


def test_trained_parameters_are_counted(model):
    total = sum(parameter.numel() for parameter in model.parameters())
    assert parameter_counts(prepared(copy.deepcopy(model), "prompt")) == (total + 5 * 32, 5 * 32)
    # two layers, keys and values, two heads of eight
    assert parameter_counts(prepared(copy.deepcopy(model), "prefix")) == (total + 5 * 2 * 2 * 16, 5 * 2 * 2 * 16)
    mlp = 5 * 32 + (32 * 12 + 12) + (12 * 12 + 12) + (12 * 32 + 32)
    assert parameter_counts(prepared(copy.deepcopy(model), "p_tuning")) == (total + mlp, mlp)


@pytest.mark.filterwarnings("ignore:Position ids are not supported:UserWarning")  # of PEFT's own generate
@pytest.mark.parametrize("method", METHODS)
def test_answers_are_those_of_peft(method):
    base = tiny_llama(64, seed=1, max_position_embeddings=64, initializer_range=0.5, bos_token_id=1, pad_token_id=0)
    model = prepared(base.eval(), method).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)) * 0.5)
    rng = np.random.default_rng(0)
    prompts = [rng.integers(8, 64, length).tolist() for length in (3, 17, 1, 9, 9)]
    expected = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        out = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=12, pad_token_id=0,
            eos_token_id=None,
        )  # fmt: skip
        expected.append(out[0, len(prompt) :].tolist())
    assert generate(model, prompts, stop=[], max_new_tokens=12) == expected
    assert list(stream(model, prompts[1], stop=[], max_new_tokens=12)) == expected[1]
    assert len({tuple(answer) for answer in expected}) > 2, "the prompts should matter"


def test_virtual_tokens_take_room_in_the_context(model):
    assert new_tokens_limit(model, 40, 10_000) == 2048 - 40
    for method in METHODS:
        tuned = prepared(copy.deepcopy(model), method)
        assert virtual_tokens(tuned) == 5 and new_tokens_limit(tuned, 40, 10_000) == 2048 - 45
    assert virtual_tokens(model) == 0 and virtual_tokens(prepare_method(model, "lora")) == 0


def test_virtual_tokens_that_fill_the_context_are_refused(model):
    with pytest.raises(UserError, match=r"prompt\.tokens 2048: they fill the model's context of 2,048"):
        prepared(model, "prompt", tokens=2048)


def test_an_encoder_decoder_takes_no_virtual_tokens():
    config = T5Config(d_model=32, d_ff=48, d_kv=8, num_layers=1, num_heads=4, vocab_size=61)
    with pytest.raises(UserError, match="method prompt: t5 models can't take it, since they have an encoder"):
        prepared(T5ForConditionalGeneration(config), "prompt")


def test_an_architecture_without_keys_and_values_takes_no_prefix():
    model = MambaForCausalLM(MambaConfig(hidden_size=32, num_hidden_layers=2, vocab_size=61, state_size=4)).eval()
    assert not packs(model)
    check_equal_to_peft(prepared(copy.deepcopy(model), "prompt"))
    with pytest.raises(UserError, match="method prefix: mamba models can't take it"):
        prepared(model, "prefix")
