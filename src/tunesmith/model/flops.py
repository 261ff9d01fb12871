"""How many floating-point operations a training step takes: what its speed is compared with a device's peak by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from tunesmith.model.last_layer import last_layer
from tunesmith.model.parts import causal_model, decoder_of, layers_of

_PROBE = 4  # tokens of the row that shows which inputs take part in the backward pass


@dataclass(frozen=True, slots=True)
class Cost:
    """FLOPs forward, what the backward pass adds, and what activation checkpointing computes a second time."""

    forward: float = 0.0
    backward: float = 0.0
    again: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.forward + other.forward, self.backward + other.backward, self.again + other.again)

    def __mul__(self, times: float) -> Cost:
        return Cost(self.forward * times, self.backward * times, self.again * times)


@dataclass(frozen=True, slots=True)
class TrainingFlops:
    """What training costs, in FLOPs; a multiplication and an addition are two.

    token: of the weights that every token passes. supervised: of those that only supervised tokens pass: the head, and
    of most architectures the last MLP (`model.last_layer`), though compiled models run it for all.
    pairs: by window, of one (query, key) pair in all layers with that window together; None is no window.
    """

    token: Cost
    supervised: Cost
    pairs: dict[int | None, Cost]

    def of(self, lengths: Sequence[int] | np.ndarray, supervised: int, *, recomputed: bool = False) -> float:
        """FLOPs of training on documents of these lengths, in tokens, of which `supervised` tokens are supervised.

        Model FLOPs, as utilisation is defined (PaLM, arXiv:2204.02311, appendix B): what the mathematics needs. With
        `recomputed` they are those that activation checkpointing makes of them.
        """
        sizes = np.asarray(lengths, dtype=np.float64)
        cost = self.token * float(sizes.sum()) + self.supervised * supervised
        for window, pair in self.pairs.items():
            cost += pair * _pairs_seen(sizes, window)
        return cost.forward + cost.backward + (cost.again if recomputed else 0.0)


def _pairs_seen(lengths: np.ndarray, window: int | None) -> float:
    """(query, key) pairs of causal attention within documents: L(L + 1) / 2 each, less what a window hides."""
    hidden = np.maximum(lengths - window, 0) if window else np.zeros_like(lengths)
    return float((lengths * (lengths + 1) / 2 - hidden * (hidden + 1) / 2).sum())


def training_flops(model: Any) -> TrainingFlops:
    """What a causal model costs to train as it stands: which weights are trained, which adapters it has.

    A weight matrix of n numbers takes 2n FLOPs a token forward; backward 2n for the gradient of its input, if anything
    trained comes before it, and 2n for its own, if it is trained: 6n in full training (Kaplan et al.,
    arXiv:2001.08361, section 2.1), about 4n where frozen weights carry adapters. Attention takes, for each pair of a
    query and a key that it sees and each of H heads, 2D for the score of D numbers and 2D' for the value of D', and
    twice that backward (Dao, arXiv:2307.08691, section 4.1, without the scores that flash attention computes again).
    Norms, activations, softmax and the optimizer are left out: under 1% but in the smallest models. So are convolutions
    and state-space scans, of which only the projections count; and of an attention without gradient from below, where
    only some of queries, keys and values are trained, the whole backward pass is counted.

    One row of a few tokens is run to see what takes part in the backward pass, so the weights have to be there; call
    this before they are sharded over processes.
    """
    assert not model.config.is_encoder_decoder, "for causal models"
    inner = causal_model(model)
    decoder, config = decoder_of(model), inner.config.get_text_config()
    # Virtual tokens are trained outside of the decoder, and a gradient has to reach them through all of it.
    inside = {id(parameter) for parameter in inner.parameters()}
    outside = any(parameter.requires_grad and id(parameter) not in inside for parameter in model.parameters())
    layers = list(next(iter(layers_of(model)), []))
    last = last_layer(decoder)
    behind = set(last.mlp.modules()) if last is not None else set()
    with _watching(decoder, layers, outside, behind) as (costs, rest, reached):
        ids = torch.zeros(1, _PROBE, dtype=torch.long, device=inner.device)
        decoder(input_ids=ids, position_ids=torch.arange(_PROBE, device=inner.device)[None], use_cache=False)
    pairs: dict[int | None, Cost] = {}
    for index, layer in enumerate(layers):
        window = _window(config, index)
        backward = reached[index] or _attention_trains(layer)
        pairs[window] = pairs.get(window, Cost()) + _pair(config, backward)
    around, *own = costs
    whole = [_computed_again([*layer, *(rest if layer is own[-1] else ())]) for layer in own]
    token = sum([*around, *(cost for each, some in zip(whole, own, strict=True) for cost in each[: len(some)])], Cost())
    supervised = sum(whole[-1][len(own[-1]) :], _head(inner)) if rest else _head(inner)
    return TrainingFlops(token, supervised, pairs)


@contextmanager
def _watching(
    decoder: PreTrainedModel, layers: Sequence[nn.Module], always: bool, behind: Set[nn.Module]
) -> Iterator[tuple[list[list[Cost]], list[Cost], list[bool]]]:
    """Yields what will hold the costs per token of the matrices that run inside, in their order, those before the
    layers and those of each layer; those of the modules in `behind`, which are not among them; and of each layer,
    whether its input has a gradient. always: count it so."""
    costs: list[list[Cost]] = [[]]
    rest: list[Cost] = []
    reached: list[bool] = []

    def enter_layer(module: nn.Module, args: Any, kwargs: Any) -> None:
        costs.append([])
        reached.append(always or any(torch.is_tensor(x) and x.requires_grad for x in (*args, *kwargs.values())))

    def enter_matrices(module: nn.Module, args: Any, kwargs: Any) -> None:
        inputs = next(x for x in (*args, *kwargs.values()) if torch.is_tensor(x) and x.is_floating_point())
        (rest if module in behind else costs[-1]).extend(_costs(module, inputs, always))

    # The layers first: a hook of theirs that runs opens the list for what is inside of them.
    hooks = [layer.register_forward_pre_hook(enter_layer, with_kwargs=True) for layer in layers]
    inside = [module for module in decoder.modules() if _matrices(module)]
    hooks += [module.register_forward_pre_hook(enter_matrices, with_kwargs=True) for module in inside]
    training = decoder.training
    decoder.eval()  # neither dropout nor checkpointing: nothing random is drawn, every module runs once
    try:
        with torch.enable_grad():
            yield costs, rest, reached
    finally:
        decoder.train(training)
        for hook in hooks:
            hook.remove()


def _computed_again(costs: Sequence[Cost]) -> list[Cost]:
    """A layer's matrices with what checkpointing computes of them again: not the last, whose result nothing backward
    needs, and none of a layer without a backward pass."""
    backward = any(cost.backward for cost in costs)
    return [replace(cost, again=cost.forward) for cost in costs[:-1] if backward] + list(costs[-1 if backward else 0 :])


def _matrices(module: nn.Module) -> list[tuple[int, bool]]:
    """(numbers that a token is multiplied by, whether they are trained) of the module's own weight matrices."""
    if isinstance(module, nn.Embedding):
        return []
    own = dict(module.named_parameters(recurse=False))
    weight = own.get("weight")
    if weight is not None and isinstance(module, nn.Linear):  # quantized ones hold fewer numbers than they multiply by
        return [(module.in_features * module.out_features, weight.requires_grad)]
    stacked = [(p[0].numel(), p.requires_grad) for name, p in own.items() if p.ndim == 3 and "expert" in _kind(module)]
    return stacked or ([(weight.numel(), weight.requires_grad)] if weight is not None and weight.ndim == 2 else [])


def _kind(module: nn.Module) -> str:
    return type(module).__name__.lower()


def _costs(module: nn.Module, inputs: Tensor, always: bool) -> Iterator[Cost]:
    """Per token of the probe. Single experts see only some of the tokens; stacked ones get all, and each token
    passes as many as the router picks."""
    share = inputs.numel() / inputs.shape[-1] / _PROBE
    if any(p.ndim == 3 for p in module.parameters(recurse=False)):
        config: Any = getattr(module, "config", None)
        share *= float(getattr(config, "num_experts_per_tok", None) or 1)
    for numbers, trained in _matrices(module):
        backward = (inputs.requires_grad or always) + trained
        yield Cost(2 * numbers, 2 * numbers * backward) * share


def _attention_trains(layer: nn.Module) -> bool:
    """Whether something is trained in front of the scores of a layer that itself gets no gradient from below."""
    names = (name.lower() for name, parameter in layer.named_parameters() if parameter.requires_grad)
    return any(part in name for name in names for part in ("attn", "attention", "input_layernorm"))


def _window(config: Any, index: int) -> int | None:
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    return window if window and (not kinds or kinds[index] == "sliding_attention") else None


def _pair(config: Any, backward: bool) -> Cost:
    heads = config.num_attention_heads
    size = getattr(config, "qk_head_dim", None) or getattr(config, "head_dim", None) or config.hidden_size // heads
    value = getattr(config, "v_head_dim", None) or size
    forward = 2.0 * heads * (size + value)
    return Cost(forward, 2 * forward, forward) if backward else Cost(forward)


def _head(model: PreTrainedModel) -> Cost:
    """The vocabulary projection, whose input gradient is always taken (`model.losses`)."""
    head = model.get_output_embeddings()
    cost = Cost()
    for module in head.modules():
        for numbers, trained in _matrices(module):
            cost += Cost(2 * numbers, 2 * numbers * (1 + trained))
    return cost
