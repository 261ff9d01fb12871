"""Every method goes through the one loop: it learns, leaves frozen weights alone, and goes on bit by bit."""

from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch
from tiny import byte_tokenizer, tiny_llama

from tunesmith.model.adapters import Method, prepare_method
from tunesmith.model.load import load_base
from tunesmith.model.losses import PackedRow, token_losses
from tunesmith.model.recompute import checkpoint_activations
from tunesmith.tokens.batches import make_batch
from tunesmith.train.loop import train
from tunesmith.train.settings import TrainSettings

SETTINGS = TrainSettings(learning_rate=1e-2, tokens_per_step=128, tokens_per_batch=64, checkpoint_every=2)
METHODS = {
    "frozen": (Method("full", freeze_embeddings=True, freeze_layers=1), 1e-2),
    "dora": (Method("lora", rank=4, dropout=0.1, rslora=True, dora=True), 3e-2),
    "qlora": (Method("qlora", rank=4, dropout=0.1), 3e-2),
    "bottleneck": (Method("bottleneck", size=16, dropout=0.1), 1e-2),
    "prompt": (Method("prompt", tokens=4), 0.3),
    "p_tuning": (Method("p_tuning", tokens=4, width=16), 0.1),
    "prefix": (Method("prefix", tokens=4), 0.3),
}


@pytest.fixture
def fresh(tmp_path):
    """A model prepared for a method, the same every time. Its base says much, and all of it wrong."""
    tiny_llama(61, initializer_range=0.3).save_pretrained(tmp_path / "base")
    byte_tokenizer().save_pretrained(tmp_path / "base")

    def prepared(method):
        model = load_base(str(tmp_path / "base"), quantized=method.name == "qlora").model
        return prepare_method(model, method)

    return prepared


def halves(model):
    named = list(model.named_parameters())
    return (
        {name: p.detach().clone() for name, p in named if p.requires_grad},
        {name: p.detach().clone() for name, p in named if not p.requires_grad},
    )


def loss_of(model, store):
    row = PackedRow.of(make_batch(store, range(len(store))), "cpu")
    return float(token_losses(model.eval(), row).mean())


@pytest.mark.parametrize("name", METHODS)
def test_it_learns_leaves_the_rest_alone_and_goes_on_to_the_same_bits(fresh, store, plan, tmp_path, name):
    method, rate = METHODS[name]
    if method.name == "qlora" and find_spec("bitsandbytes") is None:
        pytest.skip("bitsandbytes is not installed")
    settings = replace(SETTINGS, learning_rate=rate)
    planned = plan(settings, epochs=2)
    model = fresh(method)
    trained, frozen = halves(model)
    before = loss_of(model, store)
    result = train(model, store, planned, settings, tmp_path / "whole")
    assert loss_of(model, store) < 0.95 * before
    moved, still = halves(model)
    assert trained.keys() == moved.keys() and not any(torch.equal(trained[n], moved[n]) for n in trained)
    assert frozen.keys() == still.keys() and all(torch.equal(frozen[n], still[n]) for n in frozen)

    # The second half from the newest checkpoint but the last, in a new model.
    folder = tmp_path / "whole" / "checkpoints"
    for newest in sorted(folder.glob("step-*"))[1:]:
        newest.rename(tmp_path / newest.name)
    again = fresh(method)
    torch.manual_seed(99)
    resumed = train(again, store, planned, settings, tmp_path / "whole")
    assert resumed.loss_last == result.loss_last
    assert all(torch.equal(moved[n], value) for n, value in halves(again)[0].items())


@pytest.mark.parametrize("name", ["dora", "bottleneck", "prompt", "prefix"])
def test_with_activations_computed_twice_it_comes_to_the_same(fresh, store, plan, tmp_path, name):
    method, rate = METHODS[name]
    settings = replace(SETTINGS, learning_rate=rate, checkpoint_every=0)
    planned = plan(settings, epochs=1)
    once, twice = fresh(method), checkpoint_activations(fresh(method))
    train(once, store, planned, settings, tmp_path / "once")
    train(twice, store, planned, settings, tmp_path / "twice")
    for one, other in zip(halves(once)[0].values(), halves(twice)[0].values(), strict=True):
        torch.testing.assert_close(other, one, atol=1e-4, rtol=1e-4)
