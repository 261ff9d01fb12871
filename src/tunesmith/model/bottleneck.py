"""Bottleneck adapters (Houlsby and others, arXiv:1902.00751) as a method of PEFT.

Behind attention and behind the MLP of every layer, before the residual connection, stands
`x + up(gelu(down(dropout(x))))`, with biases. `up` starts at zero, so training starts from exactly the base model; the
paper draws it so small that it is nearly so. The base's norms stay as they are, where the paper trains them too: so
the adapter is all that is saved, and the base remains whole beside it.

Importing this module makes the method known to PEFT, whose `PeftModel.from_pretrained` then loads such adapters.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import Any

from peft.config import PeftConfig
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from peft.utils import PeftType, register_peft_method
from torch import Tensor, nn

from tunesmith.base.errors import UserError
from tunesmith.model.parts import layers_of

NAME = "bottleneck"
ATTENTION = ("self_attn", "attn", "attention", "self_attention", "SelfAttention", "EncDecAttention")
MLP = ("mlp", "feed_forward", "ffn", "block_sparse_moe", "DenseReluDense")


def _known_to_peft() -> PeftType:
    """The method as a member of PEFT's own list, which PEFT keeps as an enumeration without a way to add to it."""
    name = NAME.upper()
    if name not in PeftType._member_map_:
        member = str.__new__(PeftType, name)
        member._name_, member._value_ = name, name
        PeftType._member_map_[name] = PeftType._value2member_map_[name] = member
        PeftType._member_names_.append(name)
        type.__setattr__(PeftType, name, member)
    return PeftType(name)


@dataclass
class BottleneckConfig(PeftConfig):  # type: ignore[misc]
    """size: inner width. dropout: part of the inputs set to 0 at random while training. target_modules: names of the
    modules behind which adapters stand, by default those of the architecture (see `targets_of`)."""

    size: int = 64
    dropout: float = 0.0
    target_modules: set[str] | list[str] | str | None = field(default=None)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PeftType(NAME.upper())
        if isinstance(self.target_modules, list):
            self.target_modules = set(self.target_modules)


class BottleneckLayer(nn.Module, BaseTunerLayer):  # type: ignore[misc]
    """A part of a layer (attention or MLP), and the adapter behind it.

    The part may return a tensor (..., W), or a tuple that begins with one.
    """

    adapter_layer_names = ("bottleneck_down", "bottleneck_up")
    other_param_names = ("bottleneck_dropout",)

    def __init__(self, base_layer: nn.Module, adapter_name: str, config: BottleneckConfig, width: int) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.bottleneck_down, self.bottleneck_up = nn.ModuleDict(), nn.ModuleDict()
        self.bottleneck_dropout = nn.ModuleDict()
        self.in_features = self.out_features = width
        self._disable_adapters = False
        self.merged_adapters: list[str] = []
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, config)

    def update_layer(self, adapter_name: str, config: BottleneckConfig, **kwargs: Any) -> None:
        device = next(self.base_layer.parameters()).device
        self.bottleneck_down[adapter_name] = nn.Linear(self.in_features, config.size, device=device)
        up = nn.Linear(config.size, self.out_features, device=device)
        nn.init.zeros_(up.weight)
        nn.init.zeros_(up.bias)
        self.bottleneck_up[adapter_name] = up
        self.bottleneck_dropout[adapter_name] = nn.Dropout(config.dropout)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        result = self.base_layer(*args, **kwargs)
        if self.disable_adapters:
            return result
        if isinstance(result, tuple):
            return self._adapt(result[0]), *result[1:]
        return self._adapt(result)

    def _adapt(self, x: Tensor) -> Tensor:
        """(..., W) -> (..., W), in the type it came in."""
        for name in self.active_adapters:
            if name in self.bottleneck_down:
                down, up = self.bottleneck_down[name], self.bottleneck_up[name]
                inner = down(self.bottleneck_dropout[name](x).to(down.weight.dtype))
                x = x + up(nn.functional.gelu(inner)).to(x.dtype)
        return x

    def __getattr__(self, name: str) -> Any:
        """What layers ask their parts for, like `is_causal`, is the part's own."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "base_layer":  # not set yet
                raise
            return getattr(self.base_layer, name)

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        raise ValueError("a bottleneck adapter has a non-linear function in its middle and can't be merged")

    def unmerge(self) -> None:
        raise ValueError("a bottleneck adapter is never merged")


class BottleneckModel(BaseTuner):  # type: ignore[misc]
    """PEFT's side of the method: puts the adapters into a model."""

    prefix = "bottleneck_"
    tuner_layer_cls = BottleneckLayer

    def _prepare_adapter_config(self, peft_config: BottleneckConfig, model_config: Any) -> BottleneckConfig:
        if peft_config.target_modules is None:
            peft_config.target_modules = targets_of(self.model)
        return peft_config

    def _create_and_replace(
        self,
        peft_config: BottleneckConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        **kwargs: Any,
    ) -> None:
        if isinstance(target, BottleneckLayer):
            target.update_layer(adapter_name, peft_config)
            return
        width = self.model.config.get_text_config().hidden_size
        setattr(parent, target_name, BottleneckLayer(target, adapter_name, peft_config, width))


def targets_of(model: Any) -> set[str]:
    """The names of the attention and MLP modules of a model's layers.

    Raises UserError where a layer does not have both as parts of its own, so that nothing can stand behind them.
    """
    found: set[str] = set()
    stacks = layers_of(model)
    for layer in (layer for stack in stacks for layer in stack):
        for kind, names in (("attention", ATTENTION), ("MLP", MLP)):
            here = _outermost(layer, names)
            if not here:
                raise UserError(
                    f"method bottleneck: layers of {model.config.model_type} models have no {kind} module that an "
                    f"adapter could stand behind (they hold {', '.join(name for name, _ in layer.named_children())}). "
                    f"Use lora."
                )
            found.update(here)
    if not stacks:
        raise UserError(
            f"method bottleneck: {model.config.model_type} models do not say what their layers are. Use lora."
        )
    return found


def _outermost(layer: nn.Module, names: tuple[str, ...]) -> set[str]:
    """Which of these names modules of the layer have that are not inside of another one of them.

    A module that adds the residual itself (as Bloom's do) doesn't count: behind it is too late.
    """
    paths = [path for path, _ in layer.named_modules() if path.rpartition(".")[2] in names]
    outer = [path for path in paths if not any(path.startswith(f"{other}.") for other in paths)]
    takes = (inspect.signature(layer.get_submodule(path).forward).parameters for path in outer)
    return {path.rpartition(".")[2] for path, taken in zip(outer, takes, strict=True) if "residual" not in taken}


_known_to_peft()
register_peft_method(name=NAME, config_cls=BottleneckConfig, model_cls=BottleneckModel)
