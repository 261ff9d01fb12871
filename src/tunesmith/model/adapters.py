"""A method of training is a way of preparing the model: which parameters train, and which are added."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tunesmith.base.errors import UserError
from tunesmith.base.random import seed_of


def prepare_method(
    model: Any,
    method: str,
    *,
    rank: int = 16,
    alpha: float = 32.0,
    dropout: float = 0.0,
    targets: Sequence[str] = (),
    seed: int = 0,
) -> Any:
    """The model, ready to be trained by "full" (every weight) or "lora" (low-rank adapters, arXiv:2106.09685).

    targets: names of the linear layers that get an adapter ("q_proj", "mlp.up_proj"); () is all but the output head.
    Raises UserError for a target that does not exist, naming those that do.
    """
    if method == "full":
        return model.requires_grad_(True)
    assert method == "lora", f"unknown method {method}"
    from peft import LoraConfig, get_peft_model  # imported here: it takes a second

    chosen = list(targets) if targets else "all-linear"
    _check_targets(model, targets)
    config = LoraConfig(
        task_type="CAUSAL_LM", r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=chosen, bias="none"
    )
    with torch.random.fork_rng(devices=[]), _quiet():
        torch.manual_seed(seed_of(seed, "lora"))
        return get_peft_model(model, config)


def load_adapter(model: Any, directory: Path) -> Any:
    """The model with the adapter saved in `directory`."""
    from peft import PeftModel

    with _quiet():
        return PeftModel.from_pretrained(model, directory)


def merge(model: Any) -> Any:
    """The model with its adapters folded into the weights; a model without adapters as it is."""
    return model.merge_and_unload() if hasattr(model, "merge_and_unload") else model


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warning that PEFT 0.21 draws from Transformers 5.2x, of no concern to whoever tunes a model."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        yield


def _check_targets(model: nn.Module, targets: Sequence[str]) -> None:
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    missing = [t for t in targets if not any(name == t or name.endswith(f".{t}") for name in names)]
    if missing:
        known = sorted({name.rpartition(".")[2] for name in names})
        raise UserError(
            f"lora targets {', '.join(missing)}: this model has no linear layer of that name. It has {', '.join(known)}"
        )
