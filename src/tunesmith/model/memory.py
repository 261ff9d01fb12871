"""What training will hold in memory, found by going through packed rows without computing a number.

Nothing has contents (see `model.blank`), so a model of 70 billion parameters takes a laptop some seconds. What runs is
the code that trains: method, attention, loss, backward pass; so the count holds for any architecture, and changes when
the code does. All sizes are bytes.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from tunesmith.base.errors import TunesmithError
from tunesmith.model.blank import FLASH, FusedAttention, blank_batch, put_fakes, with_known_places
from tunesmith.model.embedding import gradient_in_place
from tunesmith.model.fused import fused
from tunesmith.model.losses import PackedRow, supervised_loss
from tunesmith.model.parts import layers_of

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Of a weight in 4 bits: itself, its block's scale in 8 bits, and the scale of 256 scales (arXiv:2305.14314)."""
_SMALLEST_8BIT = 4096  # numbers; bitsandbytes holds the state of smaller parameters in fp32


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes that one process holds at the worst moment of a step, by what they are.

    activations: kept from the forward to the backward pass, with the copies of weights that autocast makes. loss: the
    logits of a chunk, and the gradient of the head. other: what only passes by (backward pass, gathered weights).
    """

    weights: int = 0
    gradients: int = 0
    optimizer: int = 0
    activations: int = 0
    loss: int = 0
    other: int = 0

    @property
    def total(self) -> int:
        return sum(getattr(self, field.name) for field in fields(self))


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What going through a row showed.

    parameters, trainable: numbers in them. shapes: of the trained parameters. row: memory at the worst moment of a
    row, without optimizer; after: what of `row` is still there when the step's last row is done. flops: of one row,
    what is computed twice counted twice. layer, around: bytes of the largest layer's weights and of those around all.
    """

    parameters: int
    trainable: int
    shapes: tuple[tuple[int, ...], ...]
    row: Memory
    after: Memory
    flops: float
    layer: int
    around: int


def rehearse(
    build: Callable[[], Any],
    lengths: Sequence[int],
    supervised: float,
    *,
    precision: str = "fp32",
    rows: int = 1,
    objective: Callable[[Any, PackedRow], Tensor] = supervised_loss,
    on_cpu: bool = True,
) -> Rehearsal:
    """Go through the forward and backward pass of packed rows without numbers.

    build: makes the model as it is trained, its method prepared; it is called on the device "meta".
    lengths: tokens of each document of a row, (documents,). supervised: their part that is, at the documents' ends.
    rows: of a step on this process; from two on gradients are there while a row is computed.
    on_cpu: whether it trains in the forms for CPUs, `model.fused` and `model.embedding`; not where it is compiled.
    Raises TunesmithError for an architecture whose shapes depend on the numbers.
    """
    with torch.device("meta"):
        model = build().train()
    row = PackedRow.of(blank_batch(lengths, supervised), "cpu")
    if getattr(model.config, "is_encoder_decoder", False):
        row = with_known_places(row)
    forms = fused(model) if on_cpu else nullcontext()  # before there are fakes: parts are recognised by numbers
    with forms, FakeTensorMode(allow_non_fake_inputs=True):
        try:
            put_fakes(model)
            with gradient_in_place(model) if on_cpu else nullcontext(), _Held() as held:
                return _through(model, row, held, precision, min(rows, 2), objective)
        except RuntimeError as error:  # of PyTorch: what it computes depends on the numbers, or is unknown without them
            if isinstance(error, NotImplementedError):
                raise
            first = str(error).strip().partition("\n")[0]
            raise TunesmithError(
                f"memory can't be foreseen for {model.config.model_type} models: they can't be gone through without "
                f"numbers ({first}). Train a step to see: `--set train.epochs=0.01`."
            ) from error


def _through(
    model: Any, row: PackedRow, held: _Held, precision: str, rows: int, objective: Callable[[Any, PackedRow], Tensor]
) -> Rehearsal:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    held.are_weights(model)
    dtype = AUTOCAST.get(precision)
    loss = None
    with _phases(model, held, trained), FusedAttention():
        for _ in range(rows):
            held.flops = 0.0
            held.phase = "activations"
            with torch.autocast("cpu", dtype, enabled=dtype is not None):
                loss = objective(model, row)
            held.phase = "other"
            loss.backward()  # type: ignore[no-untyped-call]
            for parameter in trained:  # what was added in place is known only now
                if parameter.grad is not None:
                    held.is_now(parameter.grad, "gradients")
        after = Memory(**held.now)
    del loss
    layers = [sum(map(_size, layer.parameters())) for stack in layers_of(model) for layer in stack]
    everything = list(model.parameters())
    return Rehearsal(
        parameters=sum(p.numel() for p in everything),
        trainable=sum(p.numel() for p in trained),
        shapes=tuple(tuple(p.shape) for p in trained),
        row=Memory(**held.worst),
        after=after,
        flops=held.flops,
        layer=max(layers, default=0),
        around=sum(map(_size, everything)) - sum(layers),
    )


def step_memory(
    found: Rehearsal, optimizer: str, *, rows: int = 1, processes: int = 1, sharding: str = "none"
) -> Memory:
    """Memory of one process at the worst moment of a step: while a row is computed, or while weights are updated."""
    state = sum(_state(shape, optimizer) for shape in found.shapes)
    largest = max((int(np.prod(shape)) for shape in found.shapes), default=0)
    passing = 3 * 4 * largest if optimizer == "adafactor" else 0  # its update, and two estimates of the variance
    computing = replace(found.row, optimizer=state)
    updating = replace(found.after, optimizer=state, gradients=4 * found.trainable, other=found.after.other + passing)
    if sharding == "fsdp" and processes > 1:
        computing, updating = (_sharded(each, found, rows, processes) for each in (computing, updating))
    return max(computing, updating, key=lambda memory: memory.total)


def _sharded(whole: Memory, found: Rehearsal, rows: int, processes: int) -> Memory:
    """Weights and optimizer state are dealt out; a layer, the next one, and what lies around are whole when needed.
    Gradients are dealt out only with the last row of a step, so with several rows they are whole."""
    return replace(
        whole,
        weights=whole.weights // processes,
        gradients=whole.gradients if rows > 1 else whole.gradients // processes,
        optimizer=whole.optimizer // processes,
        other=whole.other + 2 * found.layer + found.around,
    )


def _state(shape: tuple[int, ...], optimizer: str) -> int:
    """Bytes of optimizer state of a parameter: two fp32 numbers for each of it, two in 8 bits with a scale for 256,
    or (Adafactor) one for each row and column."""
    count = int(np.prod(shape))
    if optimizer == "adafactor":
        return 4 * (count // shape[-1] + count // shape[-2]) if len(shape) > 1 else 4 * count
    return round(count * (2 + 2 * 4 / 256)) if optimizer == "adamw_8bit" and count >= _SMALLEST_8BIT else 8 * count


def quantized(found: Rehearsal, model: Any, adapters: int, dtype: torch.dtype) -> Rehearsal:
    """What is found of LoRA, as it is with its base's linear layers in 4 bits (QLoRA).

    model: the base, whose weights are in `dtype`. adapters: bytes of the trained weights.
    """
    head = model.get_output_embeddings()
    linear = [
        module.weight.numel() for module in model.modules() if isinstance(module, nn.Linear) and module is not head
    ]
    saved = round(sum(linear) * (dtype.itemsize - NF4_BYTES))
    part = saved / max(1, found.row.weights - adapters)
    unpacked = max(linear, default=0) * dtype.itemsize  # a layer's weights are whole while it is computed
    row, after = (replace(m, weights=m.weights - saved) for m in (found.row, found.after))
    row = replace(row, other=row.other + unpacked)
    return replace(found, row=row, after=after, layer=round(found.layer * (1 - part)))


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


class _Held(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of tensors that are held, by the phase in which they came to be, and FLOPs.

    now, worst: bytes by phase now, and when they were most.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.phase = "weights"
        self.flops = 0.0
        self.now: Counter[str] = Counter()
        self.worst: Counter[str] = Counter()
        self._total = self._most = 0
        self._known: dict[int, tuple[int, str]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.flops += _flops(func, args, kwargs or {}, result)
        for value in tree_iter(result):
            if isinstance(value, Tensor):
                self._see(value.untyped_storage())
        return result

    def _see(self, storage: Any) -> None:
        key = storage._cdata
        if key in self._known:
            return
        self._known[key] = storage.nbytes(), self.phase
        weakref.finalize(storage, self._gone, key)
        self._add(self.phase, storage.nbytes())

    def _gone(self, key: int) -> None:
        size, phase = self._known.pop(key)
        self.now[phase] -= size
        self._total -= size

    def _add(self, phase: str, size: int) -> None:
        self.now[phase] += size
        self._total += size
        if self._total > self._most:
            self._most, self.worst = self._total, self.now.copy()

    def is_now(self, tensor: Tensor, phase: str) -> None:
        """From here on the tensor counts there."""
        key = tensor.untyped_storage()._cdata
        if key in self._known and self._known[key][1] != phase:
            size, before = self._known[key]
            self._known[key] = size, phase
            self.now[before] -= size
            self.now[phase] += size

    def are_weights(self, model: nn.Module) -> None:
        for tensor in (*model.parameters(), *model.buffers()):
            self._see(tensor.untyped_storage())
            self.is_now(tensor, "weights")


def _flops(func: Any, args: Any, kwargs: Any, result: Any) -> float:
    if FLASH in str(func):
        q, k, v = args[1:4] if "backward" in str(func) else args[:3]
        shapes = [x.shape for x in (q, k, v)]
        shapes[1:] = [torch.Size([s[0], shapes[0][1], *s[2:]]) for s in shapes[1:]]
        forward = "backward" not in str(func)
        count = sdpa_flop_count(*shapes) if forward else sdpa_backward_flop_count(shapes[0], *shapes)  # type: ignore[no-untyped-call]
        return float(count) / 2  # causal: half of the products are never needed
    counted = flop_registry.get(getattr(func, "overloadpacket", None))
    return float(counted(*args, **kwargs, out_val=result)) if counted else 0.0


@contextmanager
def _phases(model: Any, held: _Held, trained: Sequence[nn.Parameter]) -> Iterator[None]:
    """Within, what comes to be behind the last layer counts as of the loss, and gradients as gradients."""

    def enter(phase: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            if held.phase != "other":  # layers that are computed again in the backward pass
                held.phase = phase

        return hook

    def gradient(parameter: Tensor) -> None:
        assert parameter.grad is not None
        held.is_now(parameter.grad, "gradients")

    with ExitStack() as hooks:
        for stack in layers_of(model):
            for layer in stack:
                hooks.callback(layer.register_forward_pre_hook(enter("activations")).remove)
            hooks.callback(stack[-1].register_forward_hook(enter("loss")).remove)
        for parameter in trained:
            hooks.callback(parameter.register_post_accumulate_grad_hook(gradient).remove)  # type: ignore[no-untyped-call]
        yield
