"""`tunesmith plan`: what a run will take, and what speaks against it, before any of it is spent."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from traceback import clear_frames
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from tunesmith.base.errors import TunesmithError
from tunesmith.base.progress import say
from tunesmith.base.ranks import Ranks
from tunesmith.base.stopping import terminations_interrupt
from tunesmith.data.ledger import Ledger
from tunesmith.model.load import load_tokenizer
from tunesmith.pipeline import advising
from tunesmith.pipeline.advising import Advice, DataFacts
from tunesmith.pipeline.context import on_context
from tunesmith.pipeline.covering import judge
from tunesmith.pipeline.estimating import (
    TRIAL_SECONDS,
    Estimate,
    RowShape,
    Speed,
    assumed_speed,
    estimate,
    largest_row,
    row_of_lengths,
    tried_speed,
)
from tunesmith.pipeline.folder import RunFolder
from tunesmith.pipeline.gpus import CONTEXT, RESERVE, Device, device_named, process_memory
from tunesmith.pipeline.mixing import REPLAY
from tunesmith.pipeline.preparing import Prepared, prepare, tokenizer_of
from tunesmith.pipeline.training import check_processes
from tunesmith.recipe import LoadedRecipe
from tunesmith.recipe.models import Recipe
from tunesmith.report.plan import print_plan
from tunesmith.tokens.rendering import shipped_template

OK = 0
SUPERVISED = 0.5  # part of the tokens, where no data is known
KEPT = {"full": (1.5, 1.9), "adapter": (2.6, 4.8)}
"""On a CPU without low_memory, what a process takes for tensors over what they hold (docs/planning.md)."""
_TOO_LONG = re.compile(r"has (\d+) tokens")


@dataclass(frozen=True, slots=True)
class Asked:
    """gpu: name of one, None is this machine. trial, data: whether to try steps, and to prepare the data."""

    gpu: str | None = None
    processes: int = 1
    data: bool = True
    trial: bool = True
    as_json: bool = False


def plan(loaded: LoadedRecipe, path: Path, asked: Asked) -> int:
    """Print what a run of the recipe in the folder `path` will take. Returns the exit code.

    Prepares the data there first, unless that has been done; nothing else in the folder changes.
    """
    recipe, device = loaded.recipe, device_named(asked.gpu)
    check_processes(recipe, Ranks(size=asked.processes))
    folder = RunFolder.open(path, loaded) if asked.data else None
    tokenizer = tokenizer_of(recipe, load_tokenizer) if folder else None
    prepared = _prepared(folder, tokenizer) if folder else None
    found = foreseen(recipe, device, asked, prepared, folder, tokenizer)
    if asked.as_json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        print_plan(found)
    return OK


def _prepared(folder: RunFolder, tokenizer: Any) -> Prepared:
    with terminations_interrupt(), nullcontext() if folder.facts["keys"].get("prepare") else folder.running():
        return prepare(folder, tokenizer)


def foreseen(
    recipe: Recipe,
    device: Device,
    asked: Asked,
    prepared: Prepared | None = None,
    folder: RunFolder | None = None,
    tokenizer: Any = None,
) -> dict[str, Any]:
    """The plan as data, as `--json` prints it. Sizes are bytes, times seconds."""
    settings, assumed, known = recipe.train, [], None
    if prepared and folder and prepared.plan.steps:
        row = largest_row(prepared.plan, prepared)
        known = data_facts(recipe, prepared, folder, tokenizer)
    else:
        row = row_of_lengths(recipe, SUPERVISED)
        assumed.append(
            f"no data was read: packed rows full of documents of {settings.max_length:,} tokens, "
            f"{SUPERVISED:.0%} of them supervised"
        )
    try:
        made = estimate(recipe, row, asked.processes, on_gpu=device.is_gpu)
    except TunesmithError as error:
        if error.exit_code == 2:
            raise
        made = None
        assumed.append(str(error))
    memory = _memory(made, device) if made else None
    speed = _speed(recipe, device, asked, made, row, prepared, tokenizer, assumed)
    if memory:
        memory["taken"] = speed.taken if speed else None
    longest = int(prepared.store.lengths.max(initial=0)) if prepared else None
    advice = [*_advice(recipe, made, known, row, device, asked, memory), *on_context(recipe, longest)]
    # Of several turns the plan has told already, with what is trained of them.
    short = judge(folder) if folder and prepared else []
    advice += [Advice(each.what, each.remedy) for each in short if each.kind != "multi_turn"]
    if memory:
        assumed += _assumed_of_memory(recipe, device, asked, memory["taken"])
    return {
        "base": recipe.base,
        "method": settings.method,
        "device": asdict(device),
        "processes": asked.processes,
        "parameters": {"all": made.found.parameters, "trained": made.found.trainable} if made else None,
        "step": {
            "tokens": settings.tokens_per_step,
            "tokens_per_batch": settings.tokens_per_batch,
            "rows_per_process": settings.tokens_per_step // settings.tokens_per_batch // asked.processes,
        },
        "epochs": settings.epochs,
        "data": asdict(known) if known else None,
        "memory": memory,
        "time": _time(speed, known),
        "warnings": [asdict(each) for each in advice],
        "assumed": assumed,
    }


def data_facts(recipe: Recipe, prepared: Prepared, folder: RunFolder, tokenizer: Any) -> DataFacts:
    """What the prepared data is like, as far as it can be at fault."""
    store, plan = prepared.store, prepared.plan
    drawn = np.concatenate([order for _, order in plan.epochs])
    instruction = ~pc.starts_with(store.rows["row"], f"{REPLAY}:").to_numpy()
    trained = np.zeros(len(store), dtype=bool)
    trained[drawn] = True
    asked = store.rows.filter((trained & instruction).tolist())
    turns = asked["turns"].to_numpy()
    chats = tokenizer.chat_template not in [shipped_template(name) for name in ("alpaca", "plain", "seq2seq")]
    told = chats and recipe.train.supervise == "assistant" and len(turns)
    too_long = _too_long(folder)
    rows = pc.count_distinct(store.rows["row"]).as_py()
    lengths = np.concatenate([store.lengths, too_long])
    return DataFacts(
        steps=plan.steps,
        tokens=plan.tokens,
        supervised=int(store.supervised_counts[drawn].sum()),
        rows=rows,
        clusters=pc.count_distinct(asked["cluster"].cast("string")).as_py() if recipe.data.mix.by == "cluster" else 0,
        efficiency=plan.efficiency,
        several_turns=float((turns > 1).mean()) if told else None,
        too_long=len(too_long),
        longest_99=int(np.quantile(lengths, 0.99, method="higher")) if len(too_long) else None,
    )


def _too_long(folder: RunFolder) -> np.ndarray:
    """Tokens of each row that was dropped for its length, as the ledger tells."""
    table = pq.read_table(Ledger(folder.path / "ledger").folder / "drops.parquet")
    details = table.filter(pc.equal(table["reason"], "too_long"))["detail"].to_pylist()
    return np.array([int(match[1]) for match in map(_TOO_LONG.search, details) if match], dtype=np.int64)


def _memory(made: Estimate, device: Device) -> dict[str, Any]:
    """Bytes by part; process: what is taken without any tensor, or between them. `foreseen` adds what was taken by the
    steps that were tried ("taken")."""
    process = CONTEXT + round(RESERVE * made.memory.total) if device.is_gpu else process_memory()
    total = made.memory.total + process
    return {**asdict(made.memory), "process": process, "total": total, "available": device.memory}


def _assumed_of_memory(recipe: Recipe, device: Device, asked: Asked, taken: int | None) -> Iterator[str]:
    if device.is_gpu:
        yield f"on the GPU: kernels that keep what PyTorch's fused ones keep; {RESERVE:.0%} lost between blocks"
    elif sys.platform.startswith("linux") and not recipe.train.low_memory:
        low, high = KEPT["full" if recipe.train.method == "full" else "adapter"]
        known = "the steps that were tried show how much" if taken else f"{low} to {high} times as much where measured"
        yield (
            "on this CPU: what tensors hold, as with train.low_memory; without it the C library keeps freed memory for "
            f"speed, and more is taken: {known}"
        )
    if asked.processes > 1:
        held = "a part of the weights" if recipe.train.sharding == "fsdp" else "the whole model"
        yield f"memory is of each of {asked.processes} processes, which holds {held}"
    if recipe.train.compile:
        yield "memory is that of the model as it is, not compiled"
    if recipe.train.distill:
        yield "the teacher's weights count, what it computes does not"
    if recipe.train.method == "qlora":
        yield "quantised layers are as large as NF4 with double quantisation makes them"


def _speed(
    recipe: Recipe,
    device: Device,
    asked: Asked,
    made: Estimate | None,
    row: RowShape,
    prepared: Prepared | None,
    tokenizer: Any,
    assumed: list[str],
) -> Speed | None:
    """Tokens per second; where there is none, `assumed` says why."""
    if device.here and asked.trial and prepared and made and prepared.plan.steps:
        if not device.is_gpu and made.memory.total + process_memory() > device.memory:
            assumed.append("no steps were tried, since memory would not do; so time is not known")
            return None
        say("Trying a few steps with a copy of the model ...")
        speed = tried_speed(recipe, prepared, tokenizer, made.found.flops)
        if speed is None:
            assumed.append(f"no steps were tried: one would take more than {TRIAL_SECONDS:.0f} s; so time is not known")
        elif asked.processes > 1:
            assumed.append("speed is that of one process; more on one CPU share its cores")
        return speed
    if made and device.peak(recipe.train.precision):
        return assumed_speed(made.found, row, device, recipe.train.precision, asked.processes)
    assumed.append("no steps were tried, so time is not known")
    return None


def _time(speed: Speed | None, known: DataFacts | None) -> dict[str, Any] | None:
    if speed is None:
        return None
    seconds = known.tokens / speed.tokens_per_second if known else None
    return {"seconds": seconds, "tokens_per_second": speed.tokens_per_second, "how": speed.how}


def _advice(
    recipe: Recipe,
    made: Estimate | None,
    known: DataFacts | None,
    row: RowShape,
    device: Device,
    asked: Asked,
    memory: Mapping[str, Any] | None,
) -> Iterator[Advice]:
    settings = recipe.train
    if made and memory:
        needed, available = max(memory["total"], memory["taken"] or 0), memory["available"]
        if needed > advising.LARGE_PART * available:
            others = _alternatives(recipe, row, device, asked.processes)
            yield from advising.on_memory(needed, available, device.name, others)
        yield from advising.on_rate(settings.method, settings.learning_rate, made.found.parameters)
    yield from advising.on_epochs(settings.epochs)
    if known:
        yield from advising.on_data(
            known,
            tokens_per_step=settings.tokens_per_step,
            tokens_per_batch=settings.tokens_per_batch,
            max_length=settings.max_length,
        )


# Memory that does not do


def _alternatives(recipe: Recipe, row: RowShape, device: Device, processes: int) -> dict[str, int]:
    """Bytes needed by recipes that need less, by what is changed, the smallest change first."""
    found = {}
    for change, values in _changes(recipe):
        settings = recipe.train.model_copy(update=values)
        other = recipe.model_copy(update={"train": settings})
        shape = _fitted(row, settings.tokens_per_batch)
        found[change] = _memory(estimate(other, shape, processes, on_gpu=device.is_gpu), device)["total"]
    return found


def _changes(recipe: Recipe) -> Iterator[tuple[str, dict[str, Any]]]:
    train = recipe.train
    smaller = max(train.max_length, train.tokens_per_batch // 2)
    fits = smaller < train.tokens_per_batch and train.tokens_per_step % smaller == 0
    if fits:
        yield f"tokens_per_batch: {smaller}", {"tokens_per_batch": smaller}
    if not train.activation_checkpointing:
        yield "activation_checkpointing: true", {"activation_checkpointing": True}
        if fits:
            both = {"tokens_per_batch": smaller, "activation_checkpointing": True}
            yield f"both tokens_per_batch: {smaller} and activation_checkpointing", both
    lean = {"activation_checkpointing": True, "precision": "bf16"}
    if train.method == "full":
        yield "optimizer: adafactor", {"optimizer": "adafactor"}
        yield "method: lora", {"method": "lora"}
        yield "method: lora, bf16 and activation_checkpointing", {"method": "lora", **lean}
    if train.method in ("full", "lora"):
        yield "method: qlora, bf16 and activation_checkpointing", {"method": "qlora", **lean}


def _fitted(row: RowShape, room: int) -> RowShape:
    """As many documents of the row, the longest first, as fit; at least one, cut if it must be."""
    kept: list[int] = []
    for length in sorted(row.lengths, reverse=True):
        if sum(kept) + length <= room:
            kept.append(length)
    return RowShape(tuple(kept) or (room,), row.supervised)


def advice(recipe: Recipe, prepared: Prepared, processes: int = 1) -> str:
    """What to change so that a training that ran out of memory fits, with numbers: sentences for people."""
    device, row = device_named(None), largest_row(prepared.plan, prepared)
    needed = _memory(estimate(recipe, row, processes, on_gpu=device.is_gpu), device)
    parts = ", ".join(f"{part} {needed[part] / (1 << 30):.2f}" for part in ("weights", "gradients", "optimizer"))
    others = _alternatives(recipe, row, device, processes)
    return (
        f"A step needs about {needed['total'] / (1 << 30):.2f} GiB ({parts}, activations "
        f"{needed['activations'] / (1 << 30):.2f}), {device.name} has {device.memory / (1 << 30):.1f} GiB, of which "
        f"others may use some. {advising.remedy_of(needed['total'], min(needed['total'], device.memory), others)} "
        f"With other settings training starts anew, in another folder (--output)."
    )


@contextmanager
def explaining_memory(recipe: Recipe, prepared: Prepared, processes: int = 1) -> Iterator[None]:
    """Within, running out of memory is an error that says what to change. Raises TunesmithError then."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not _is_out_of_memory(error):
            raise
        clear_frames(error.__traceback__)  # they hold what filled the memory, and the estimate needs some
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        raise TunesmithError(
            f"training ran out of memory; checkpoints written before are kept. {advice(recipe, prepared, processes)}"
        ) from error


def _is_out_of_memory(error: RuntimeError) -> bool:
    """PyTorch's own error on a GPU; its allocator's words on a CPU."""
    words = ("can't allocate memory", "not enough memory", "out of memory")
    return isinstance(error, torch.OutOfMemoryError) or any(each in str(error) for each in words)
