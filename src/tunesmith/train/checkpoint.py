"""Checkpoints that a kill or a full disk can't spoil, and that hold all a run needs to go on bit by bit.

    checkpoints/step-00000100/
      weights.safetensors    trainable parameters by name
      optimizer.safetensors  "NAME/exp_avg", "NAME/exp_avg_sq", "NAME/step"
      state.json             the run's position and counters, what it belongs to, size and SHA-256 of the other two

There is no random state to save: every step seeds its own (see `loop`).
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tunesmith.base.errors import CheckpointError
from tunesmith.base.files import file_hash, read_json, write_json, written_aside
from tunesmith.base.progress import say

WEIGHTS, OPTIMIZER, STATE = "weights.safetensors", "optimizer.safetensors", "state.json"


def save_checkpoint(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any], *, owner: str, keep: int
) -> Path:
    """Write `folder`/step-N for `state["step"]` = N, then remove all but the newest `keep`.

    owner: what the run is (a hash of its settings and data); only the same run may go on from here.
    Raises TunesmithError when it can't be written; what was there before stays.
    """
    path = folder / f"step-{state['step']:08d}"
    with written_aside(path) as aside:
        aside.mkdir()
        save_file(dict(_trained(model)), aside / WEIGHTS)
        save_file(_optimizer_tensors(model, optimizer), aside / OPTIMIZER)
        files = {name: file_hash(aside / name) for name in (WEIGHTS, OPTIMIZER)}
        write_json(aside / STATE, {"state": state, "owner": owner, "sha256": files})
    for old in _newest_first(folder)[keep:]:
        shutil.rmtree(old)
    return path


def load_newest(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, *, owner: str
) -> dict[str, Any] | None:
    """Load the newest sound checkpoint into model and optimizer; its state, or None when there is no checkpoint.

    A broken one is passed over, and said. Raises CheckpointError if one belongs to another run, or if all are broken.
    """
    for unfinished in folder.glob(".step-*"):
        shutil.rmtree(unfinished)
    candidates = _newest_first(folder)
    for path in candidates:
        fault = _fault(path)
        if fault:
            say(f"checkpoint {path.name} is broken ({fault}); trying the one before")
            continue
        record = read_json(path / STATE)
        if record["owner"] != owner:
            raise CheckpointError(
                f"{path} belongs to a run of other settings or data, and going on would mix the two. "
                f"Delete {folder}, or choose another --output."
            )
        _restore(path, model, optimizer)
        state: dict[str, Any] = record["state"]
        return state
    if candidates:
        raise CheckpointError(
            f"none of the {len(candidates)} checkpoints in {folder} can be read. "
            f"Delete that folder to train from the start, or restore it from a backup."
        )
    return None


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*"), reverse=True)


def _fault(path: Path) -> str:
    """What is wrong with a checkpoint, or ""."""
    try:
        record = read_json(path / STATE)
        for name in (WEIGHTS, OPTIMIZER):
            if file_hash(path / name) != record["sha256"][name]:
                return f"{name} is not what was written"
        record["owner"], record["state"]["step"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _trained(model: nn.Module) -> list[tuple[str, Tensor]]:
    """Trainable parameters; tied ones appear once, under their first name."""
    return [(name, p.detach()) for name, p in model.named_parameters() if p.requires_grad]


def _optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    return {f"{name}/{key}": value for name, p in named for key, value in optimizer.state[p].items()}


def _restore(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    weights, moments = load_file(path / WEIGHTS), load_file(path / OPTIMIZER)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(weights.pop(name))
                keys = [key for key in moments if key.startswith(f"{name}/")]
                optimizer.state[parameter] = {
                    key.rpartition("/")[2]: moments.pop(key).to(parameter.device) for key in keys
                }
    assert not weights and not moments, f"{path} holds more than the model: {[*weights, *moments][:3]}"
