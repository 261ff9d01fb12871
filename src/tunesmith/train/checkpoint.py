"""Checkpoints that a kill or a full disk can't spoil, and that hold all a run needs to go on bit by bit.

    checkpoints/step-00000100/
      weights.safetensors    trainable parameters by name
      optimizer.safetensors  "NAME/exp_avg", "NAME/exp_avg_sq", "NAME/step" and the like
      state.json             the run's position and counters, what it belongs to, its recipe, the files' SHA-256

A sharded model's ranks write a pair of files each (weights-1-of-2.safetensors), and any number of processes reads them:
of each tensor, state.json says which rows of the whole a file holds. There is no random state and no schedule to save:
both follow from the number of the step, see `step` and `optimizer`.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from tunesmith.base.errors import CheckpointError
from tunesmith.base.files import (
    file_hash,
    read_json,
    refusals_told,
    remove_unfinished,
    value_hash,
    write_json,
    written_aside,
)
from tunesmith.base.progress import say
from tunesmith.base.ranks import Ranks
from tunesmith.train.sharding import first_row, is_sharded, local
from tunesmith.train.tensors import write_tensors

WEIGHTS, OPTIMIZER, STATE = "weights.safetensors", "optimizer.safetensors", "state.json"
_LOWEST_PRIORITY = 19


@dataclass
class Checkpoints:
    """The checkpoints of a run.

    owner: what the run is (a hash of its settings and data); only the same run may go on from here.
    keep: how many of the newest stay. background: write beside the training, which waits only for a copy in memory.
    about: what else a person should find in state.json, such as the recipe.
    """

    folder: Path
    model: nn.Module
    optimizer: torch.optim.Optimizer
    owner: str
    keep: int = 2
    background: bool = False
    about: Mapping[str, Any] = field(default_factory=dict)
    ranks: Ranks = field(default_factory=Ranks)

    def __post_init__(self) -> None:
        self._writer = ThreadPoolExecutor(1, "checkpoint", _give_way) if self.background else None
        self._writing: Future[None] | None = None
        self._copies: dict[str, Tensor] = {}  # of what is being written beside the training, used again and again

    def save(self, state: Mapping[str, Any], *, best: int | None = None) -> None:
        """Write step-N for `state["step"]` = N, then remove all but the newest `keep` and that of step `best`.

        Raises TunesmithError when it can't be written (with `background`, at the next call, or at `finish`); what was
        there before stays.
        """
        self.finish()
        if not self.ranks.is_main and not is_sharded(self.model):
            return
        tensors = {WEIGHTS: dict(_weights(self.model)), OPTIMIZER: dict(_moments(self.model, self.optimizer))}
        record = {
            "state": dict(state),
            "owner": self.owner,
            "about": dict(self.about),
            "counts": _counts(self.optimizer),
        }
        # Now, not while it is written: in the middle of a step FSDP has whole parameters in place of parts.
        rows = _first_rows(self.model, self.ranks)
        if self._writer is None:
            self._write(tensors, rows, record, best)
        else:
            self._writing = self._writer.submit(self._write, self._copied(tensors), rows, record, best)

    def _copied(self, tensors: dict[str, dict[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
        """Copies in main memory, which training does not change. Memory that was used before is not touched anew."""
        copies: dict[str, dict[str, Tensor]] = {}
        on_gpu = False
        for file, found in tensors.items():
            for key, part in found.items():
                kept = self._copies.get(f"{file}/{key}")
                if kept is None or kept.shape != part.shape or kept.dtype != part.dtype:
                    kept = torch.empty(part.shape, dtype=part.dtype, pin_memory=part.is_cuda)
                    self._copies[f"{file}/{key}"] = kept
                copies.setdefault(file, {})[key] = kept.copy_(part.detach(), non_blocking=True)
                on_gpu = on_gpu or part.is_cuda
        if on_gpu:
            torch.cuda.synchronize()
        return copies

    def finish(self) -> None:
        """Wait until what is being written is there. Raises TunesmithError if that failed."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _write(
        self, tensors: dict[str, dict[str, Tensor]], rows: dict[str, int], record: dict[str, Any], best: int | None
    ) -> None:
        path = self.folder / f"step-{record['state']['step']:08d}"
        if is_sharded(self.model):
            self._write_shards(path, tensors, rows, record)
        else:
            with written_aside(path) as aside:
                aside.mkdir()
                files = {name: write_tensors(aside / name, found) for name, found in tensors.items()}
                write_json(aside / STATE, _sealed(record | {"files": files}))
        if self.ranks.is_main:
            with refusals_told(path):
                self._remove_others(path, best)

    def _remove_others(self, path: Path, best: int | None) -> None:
        for broken in (other for other in _newest_first(self.folder) if other.name > path.name):
            shutil.rmtree(broken)  # newer than what training went on from: it could not be read
        for old in _newest_first(self.folder)[self.keep :]:
            if best is None or old.name != f"step-{best:08d}":
                shutil.rmtree(old)

    def _write_shards(
        self, path: Path, tensors: dict[str, dict[str, Tensor]], rows: dict[str, int], record: dict[str, Any]
    ) -> None:
        """Every rank writes its part into one folder, and rank 0 gives that its name once all have."""
        parts = path.with_name(f".{path.name}.parts")
        if self.ranks.is_main:
            with refusals_told(path):
                shutil.rmtree(parts, ignore_errors=True)
                parts.mkdir(parents=True)
        self.ranks.meet("checkpoint begins")
        with refusals_told(path):
            self._write_part(parts, tensors, rows)
        self.ranks.meet("checkpoint written")
        if self.ranks.is_main:
            files = {f"{file.stem}.safetensors": read_json(file) for file in sorted(parts.glob("*.json"))}
            with written_aside(path) as aside:
                parts.rename(aside)
                for file in aside.glob("*.json"):
                    file.unlink()
                write_json(aside / STATE, _sealed(record | {"files": files}))
        self.ranks.meet("checkpoint named")

    def _write_part(self, parts: Path, tensors: dict[str, dict[str, Tensor]], rows: dict[str, int]) -> None:
        """This rank's rows of every tensor, and beside each file what state.json is to say of it.

        rows: of each parameter, the first that is this rank's.
        """
        for name, found in tensors.items():
            file = parts / name.replace(".", f"-{self.ranks.rank + 1}-of-{self.ranks.size}.")
            written = write_tensors(file, {key: part for key, part in found.items() if part.numel()})
            starts = {key: rows.get(key.partition("/")[0], 0) for key in found}
            write_json(file.with_suffix(".json"), written | {"rows": starts})

    def load_newest(self) -> dict[str, Any] | None:
        """Load the newest sound checkpoint into model and optimizer; its state, or None when there is no checkpoint.

        A broken one is passed over, and said. Raises CheckpointError if one belongs to another run, or all are broken.
        """
        if self.ranks.is_main:
            remove_unfinished(self.folder)
            for parts in self.folder.glob(".step-*.parts"):
                shutil.rmtree(parts)
        candidates = _newest_first(self.folder)
        for path in candidates:
            fault = _fault(path)
            if fault:
                if self.ranks.is_main:
                    say(f"checkpoint {path.name} is broken ({fault}); trying the one before")
                continue
            return self._load(path)
        if candidates:
            raise CheckpointError(
                f"none of the {len(candidates)} checkpoints in {self.folder} can be read. "
                f"Delete that folder to train from the start, or restore it from a backup."
            )
        return None

    def newest_step(self) -> int | None:
        """The step of the newest checkpoint there is, sound or not."""
        newest = next(iter(_newest_first(self.folder)), None)
        return None if newest is None else int(newest.name.removeprefix("step-"))

    def load_weights(self, step: int) -> None:
        """Put the trainable parameters of a checkpoint that was kept into the model.

        Raises CheckpointError if it is broken.
        """
        path = self.folder / f"step-{step:08d}"
        if fault := _fault(path):
            raise CheckpointError(f"{path}, the best of the run, is broken ({fault}). Delete it and train again.")
        _restore(path, read_json(path / STATE), self.model, None, self.ranks)

    def _load(self, path: Path) -> dict[str, Any]:
        record = read_json(path / STATE)
        if record["owner"] != self.owner:
            raise CheckpointError(
                f"{path} belongs to a run of other settings or data, and going on would mix the two. "
                f"Delete {self.folder}, or choose another --output."
            )
        _restore(path, record, self.model, self.optimizer, self.ranks)
        state: dict[str, Any] = record["state"]
        return state


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*"), reverse=True)


def _sealed(record: dict[str, Any]) -> dict[str, Any]:
    """With its own checksum: a lost bit would change position or owner unseen."""
    return record | {"sha256": value_hash(record)}


def _fault(path: Path) -> str:
    """What is wrong with a checkpoint, or ""."""
    try:
        record = read_json(path / STATE)
        if record.pop("sha256") != value_hash(record):
            return f"{STATE} is not what was written"
        files = record["files"]
        for name, written in files.items():
            if file_hash(path / name) != written["sha256"]:
                return f"{name} is not what was written"
        record["owner"], record["state"]["step"], record["counts"]
        if not files:
            return "it names no files"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _trained(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Trainable parameters; tied ones appear once, under their first name."""
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)


def _weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    return ((name, local(parameter.detach())) for name, parameter in _trained(model))


def _moments(model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, Tensor]]:
    """The optimizer's tensors, as NAME/KEY."""
    for name, parameter in _trained(model):
        for key, value in optimizer.state[parameter].items():
            if isinstance(value, Tensor):
                yield f"{name}/{key}", local(value)


def _counts(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """What an optimizer counts in plain numbers; the same for all parameters."""
    states = optimizer.state.values()
    return {key: value for state in states for key, value in state.items() if isinstance(value, int | float)}


def _first_rows(model: nn.Module, ranks: Ranks) -> dict[str, int]:
    return {name: first_row(parameter, ranks.rank, ranks.size) for name, parameter in _trained(model)}


def _give_way() -> None:
    """Where Linux lets a thread have a priority of its own: the training's threads wait for each other in every
    product, so one that lost its core to the writer would hold up all of them."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOWEST_PRIORITY)


def _restore(
    path: Path, record: Mapping[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer | None, ranks: Ranks
) -> None:
    with _Parts(path, record["files"]) as parts, torch.no_grad():
        for name, parameter in _trained(model):
            start = first_row(parameter, ranks.rank, ranks.size)
            here = local(parameter)
            here.copy_(parts.read(name, start, here))
            if optimizer is None:
                continue
            moments = {key: _moment(parts, name, key, start, parameter) for key in parts.keys_of(name)}
            optimizer.state[parameter] = moments | dict(record["counts"])
        missing = parts.names - {name for name, _ in _trained(model)}
    assert not missing, f"{path} holds more than the model: {sorted(missing)[:3]}"


def _moment(parts: _Parts, name: str, key: str, start: int, parameter: Any) -> Tensor:
    """One of an optimizer's tensors of a parameter, cut into parts as the parameter is."""
    here = local(parameter)
    if len(parts.shape(f"{name}/{key}")) != here.ndim:
        return parts.read(f"{name}/{key}", 0, None).to(here.device)  # a count, say, is whole on every rank
    part = parts.read(f"{name}/{key}", start, here).to(here.device)
    if not hasattr(parameter, "to_local"):
        return part
    from torch.distributed.tensor import DTensor

    return DTensor.from_local(
        part, parameter.device_mesh, parameter.placements, shape=parameter.shape, stride=parameter.stride()
    )


class _Parts:
    """The tensors of a checkpoint, whichever files their rows are in."""

    def __init__(self, path: Path, files: Mapping[str, Mapping[str, Any]]) -> None:
        self._opened = [safe_open(path / name, framework="pt") for name in files]
        self._rows: dict[str, list[tuple[int, Any]]] = {}
        for file, described in zip(self._opened, files.values(), strict=True):
            for key in file.keys():  # type: ignore[no-untyped-call]  # noqa: SIM118 (safetensors' files are no mappings)
                self._rows.setdefault(key, []).append((described.get("rows", {}).get(key, 0), file))

    def __enter__(self) -> _Parts:
        return self

    def __exit__(self, *raised: object) -> None:
        self._opened.clear()
        self._rows.clear()

    @property
    def names(self) -> set[str]:
        return {key.partition("/")[0] for key in self._rows}

    def keys_of(self, name: str) -> list[str]:
        """What there is of an optimizer's tensors for a parameter."""
        return [key.partition("/")[2] for key in self._rows if key.startswith(f"{name}/")]

    def shape(self, key: str) -> tuple[int, ...]:
        _, file = self._rows[key][0]
        return tuple(file.get_slice(key).get_shape())

    def read(self, key: str, start: int, like: Tensor | None) -> Tensor:
        """Rows start to start + len(like) of a whole tensor; all of it, from the first file, without `like`."""
        if like is None or not like.ndim:
            whole: Tensor = self._rows[key][0][1].get_tensor(key)
            return whole
        end, found = start + len(like), []
        for first, file in sorted(self._rows[key], key=lambda part: part[0]):
            rows = file.get_slice(key)
            length = rows.get_shape()[0]
            if first < end and start < first + length:
                found.append(rows[max(start - first, 0) : min(end - first, length)])
        return torch.cat(found) if found else like.new_empty((0, *like.shape[1:]))
