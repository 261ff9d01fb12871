"""Norms, rotary embeddings and gated MLPs in fewer passes over memory, which keep less for the backward pass.

Written out in Python operations these keep what can be had again in no time: a norm the normalised numbers beside its
input and its output, a gated MLP the activation and the product beside gate and up projection. None of it is computed
otherwise: a part of a model is taken only if on random numbers it gives the same values and gradients as the form here.

Shapes: T tokens, W hidden size, M size of the MLP, H heads, D size of a head.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from copy import copy
from types import MethodType, ModuleType
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call

from tunesmith.model.recompute import is_checkpointed

_ROTARY = "apply_rotary_pos_emb"  # the function of this name in a Transformers file: (q, k, cos, sin) -> (q, k)
_GATED = {"gate_proj", "up_proj", "down_proj", "act_fn"}
_CLOSE = 1e-6  # to the largest of values that are near 1, or of gradients


@contextmanager
def fused(model: nn.Module) -> Iterator[None]:
    """Within, the parts of the model that are recognised, on a CPU, run in the forms of this module.

    Gated MLPs only where layers are not computed twice as a whole, which keeps even less.
    """
    once = not is_checkpointed(model)
    with ExitStack() as undo:
        for module in model.modules():
            if "forward" in vars(module) or not _on_cpu(module):
                continue
            if _is_norm(module):
                module.forward = MethodType(_norm, module)
            elif once and _is_gated(module):
                module.forward = MethodType(_gated, module)
            else:
                continue
            undo.callback(delattr, module, "forward")
        for file in {sys.modules[type(module).__module__] for module in model.modules() if _on_cpu(module)}:
            own = vars(file).get(_ROTARY)
            if own is not None and _is_rotary(own):
                _replace(file, own, undo)
        yield


def _replace(file: ModuleType, own: Callable[..., tuple[Tensor, Tensor]], undo: ExitStack) -> None:
    def rotary(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, *rest: Any, **options: Any) -> tuple[Tensor, Tensor]:
        plain = all(x.dtype == torch.float32 and x.device.type == "cpu" for x in (q, k, cos, sin))
        if rest or options or not plain or cos.requires_grad or cos.shape[-1] != q.shape[-1]:
            return own(q, k, cos, sin, *rest, **options)
        return _rotary(q, k, cos, sin)

    setattr(file, _ROTARY, rotary)
    undo.callback(setattr, file, _ROTARY, own)


def _on_cpu(module: nn.Module) -> bool:
    return all(parameter.device.type in ("cpu", "meta") for parameter in module.parameters())


def _same(own: Callable[..., Any], ours: Callable[..., Any], *inputs: Tensor) -> bool:
    """Whether both functions of the inputs give equal values, and equal gradients into them."""
    found = []
    for function in (own, ours):
        given = [x.clone().requires_grad_() for x in inputs]
        try:
            result = function(*given)
            results: Sequence[Tensor] = result if isinstance(result, tuple) else (result,)
            # The last of several values weighs more, lest gradients are equal that were mixed up.
            total = sum((index + 1) * (x * x).sum() for index, x in enumerate(results))
            found.append([*results, *torch.autograd.grad(cast(Tensor, total), given)])
        except (RuntimeError, TypeError, ValueError, AttributeError):  # it is called, or computes, otherwise
            return False
    pairs = list(zip(*found, strict=False))
    return len(found[0]) == len(found[1]) and all(
        a.shape == b.shape and a.dtype == b.dtype and bool((a - b).abs().max() <= _CLOSE * a.abs().max().clamp(min=1.0))
        for a, b in pairs
    )


def _random(*shape: int) -> Tensor:
    """Numbers that are always the same, so that a trial does not touch the generator of the training."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)))


def _epsilon(module: nn.Module) -> float:
    return float(getattr(module, "variance_epsilon", getattr(module, "eps", None)) or 0.0)


def _is_norm(module: nn.Module) -> bool:
    """Whether it is the root mean square norm of arXiv:1910.07467, x / sqrt(mean(x^2) + epsilon) * weight."""
    parameters = dict(module.named_parameters())
    if list(parameters) != ["weight"] or not _epsilon(module):
        return False
    size, dtype = parameters["weight"].shape, parameters["weight"].dtype
    if len(size) != 1 or dtype != torch.float32:
        return False
    return _same(
        lambda x, weight: functional_call(module, {"weight": weight}, (x,)),
        lambda x, weight: _Norm.apply(x, weight, _epsilon(module)),  # type: ignore[no-untyped-call]
        0.1 * _random(3, 2, *size),
        _random(*size),
    )


def _norm(module: Any, x: Tensor) -> Tensor:
    if x.dtype != torch.float32 or module.weight.dtype != torch.float32:
        return cast(Tensor, type(module).forward(module, x))
    result: Tensor = _Norm.apply(x, module.weight, _epsilon(module))  # type: ignore[no-untyped-call]
    return result


class _Norm(torch.autograd.Function):
    """Keeps its input and the inverse of its root mean square, (..., 1)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        inverse = norm.square_().div_(x.shape[-1]).add_(epsilon).rsqrt_()
        ctx.save_for_backward(x, weight, inverse)
        normal: Tensor = x * inverse
        return normal.mul_(weight)

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor, Tensor | None, None]:
        x, weight, inverse = ctx.saved_tensors
        normal = x * inverse
        product = above * normal
        into_weight = product.flatten(0, -2).sum(0) if ctx.needs_input_grad[1] else None
        shared = torch.mv(product.flatten(0, -2), weight).view(inverse.shape).div_(x.shape[-1])
        into_x = torch.mul(above, weight, out=product).sub_(normal.mul_(shared)).mul_(inverse)
        return into_x, into_weight, None


def _is_rotary(function: Callable[..., tuple[Tensor, Tensor]]) -> bool:
    """Whether it is the rotary embedding of arXiv:2104.09864 in the form that turns the halves of a head."""
    cos, sin = _random(1, 5, 8).cos(), _random(1, 5, 8).sin()
    q, k = _random(1, 3, 5, 8), 2 * _random(1, 2, 5, 8)
    return _same(lambda q, k: function(q, k, cos, sin), lambda q, k: _rotary(q, k, cos, sin), q, k)


def _rotary(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """q (1, H, T, D) and k (1, K, T, D), turned by the angles of cos and sin (1, T, D)."""
    cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
    return _Rotary.apply(q, cos, sin), _Rotary.apply(k, cos, sin)  # type: ignore[no-untyped-call]


class _Rotary(torch.autograd.Function):
    """Keeps the angles, which all layers share."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        half = x.shape[-1] // 2
        turned = x * cos
        turned[..., :half].addcmul_(x[..., half:], sin[..., :half], value=-1)
        turned[..., half:].addcmul_(x[..., :half], sin[..., half:])
        return turned

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        half = above.shape[-1] // 2
        back = above * cos
        back[..., :half].addcmul_(above[..., half:], sin[..., half:])
        back[..., half:].addcmul_(above[..., :half], sin[..., :half], value=-1)
        return back, None, None


def _is_gated(module: nn.Module) -> bool:
    """Whether it is down(activation(gate(x)) * up(x)), tried on small projections in place of its own."""
    if {name for name, _ in module.named_children()} != _GATED or list(module.parameters(recurse=False)):
        return False
    small: Any = copy(module)
    small._modules = dict.fromkeys(module._modules) | {"act_fn": module.act_fn}

    def computes(forward: Callable[[Any, Tensor], Tensor]) -> Callable[..., Tensor]:
        def run(x: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
            for name, weight in (("gate_proj", gate), ("up_proj", up), ("down_proj", down)):
                small._modules[name] = _Projection(weight)
            return forward(small, x)

        return run

    inputs = _random(1, 4, 5), _random(7, 5), -_random(7, 5), _random(5, 7)
    return _same(computes(type(module).forward), computes(_gated), *inputs)


class _Projection(nn.Module):
    """A linear layer whose weight is no parameter, for a trial."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight)


def _gated(module: Any, x: Tensor) -> Tensor:
    """(1, T, W) of x (1, T, W). What the last projection would keep of the product is computed when it is asked for."""
    gate, up = module.gate_proj(x), module.up_proj(x)
    if not torch.is_grad_enabled():
        return cast(Tensor, module.down_proj(module.act_fn(gate) * up))
    kept = _Kept(gate.detach(), up.detach(), module.act_fn)
    product: Tensor = _Product.apply(gate, up, kept)  # type: ignore[no-untyped-call]
    storage = product.untyped_storage()._cdata

    def pack(saved: Tensor) -> Tensor | torch.Size:
        is_product = saved.untyped_storage()._cdata == storage and saved.numel() == product_size
        return saved.shape if is_product and saved.is_contiguous() else saved

    def unpack(saved: Tensor | torch.Size) -> Tensor:
        return saved if isinstance(saved, Tensor) else kept.product().view(saved)

    product_size = product.numel()  # the hooks do not hold the product itself
    with saved_tensors_hooks(pack, unpack):
        return cast(Tensor, module.down_proj(product))


class _Kept:
    """Of a gated MLP, gate and up (1, T, M); in the backward pass the activation too, between its two uses there."""

    def __init__(self, gate: Tensor, up: Tensor, activation: Callable[[Tensor], Tensor]) -> None:
        self.gate, self.up, self.activation = gate, up, activation
        self._activated: tuple[Tensor, Tensor] | None = None

    def product(self) -> Tensor:
        return self._activate()[1].detach() * self.up

    def gradients(self, above: Tensor) -> tuple[Tensor, Tensor]:
        """Into gate and up, from that into the product."""
        (gate, activated), self._activated = self._activate(), None
        into_up = above * activated.detach()
        (into_gate,) = torch.autograd.grad(activated, gate, above * self.up)
        return into_gate, into_up

    def _activate(self) -> tuple[Tensor, Tensor]:
        if self._activated is None:
            with torch.enable_grad():
                gate = self.gate.detach().requires_grad_()
                self._activated = gate, self.activation(gate)
        return self._activated


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, kept: _Kept) -> Tensor:
        ctx.kept = kept
        return kept.activation(gate) * up

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor, Tensor, None]:
        kept, ctx.kept = ctx.kept, None
        return *kept.gradients(above), None
