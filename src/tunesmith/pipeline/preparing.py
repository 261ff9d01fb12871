"""The data half of the road: read, split, supervise, mix, plan; every row accounted for in the ledger."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from tunesmith import __version__
from tunesmith.base.conversation import Conversation
from tunesmith.base.errors import DataError, UserError
from tunesmith.base.files import read_json, value_hash, write_json, write_text
from tunesmith.base.progress import say
from tunesmith.base.random import seed_of
from tunesmith.data.engine import StoredRows, write_rows
from tunesmith.data.ledger import Drop, Ledger, refuse_same_ids, save_draws
from tunesmith.data.rows import RowLabel, Rows
from tunesmith.data.sources.read import SourceRows, read_source, source_files
from tunesmith.model.encoder import encoder_files
from tunesmith.model.load import is_encoder_decoder
from tunesmith.pipeline.covering import TARGETS, cover, refuse_unknown_clusters
from tunesmith.pipeline.curating import EMBEDDING, curated, free_of_items, is_wanted
from tunesmith.pipeline.exporting import KEPT, export, has_rows, refuse_other_folder
from tunesmith.pipeline.folder import RunFolder
from tunesmith.pipeline.inputs import Input, inputs_of, refuse_changed, write_inputs
from tunesmith.pipeline.mixing import REPLAY, Members, members_of, mixture_of, summary_of, times_drawn
from tunesmith.pipeline.opening import TRAINED, trained_prompts
from tunesmith.pipeline.splitting import HELD_OUT, VALIDATION, save_worked, split_rows, worked_rows
from tunesmith.pipeline.supervising import RULES, supervise
from tunesmith.pocket import corpus, tasks
from tunesmith.recipe.data import Replay, Source
from tunesmith.recipe.evaluation import Forgetting
from tunesmith.recipe.models import Recipe
from tunesmith.recipe.phrasings import phrasings_of, template_path
from tunesmith.tokens.batches import DataPlan, plan_epochs
from tunesmith.tokens.encoded import Encoded
from tunesmith.tokens.store import TokenStore
from tunesmith.tokens.templates import chat_template_of, stop_token_ids

WITHOUT_EFFECT: Any = {"engine": True, "sources": {"__all__": {"licence"}}, "replay": {"licence"}, "coverage": TARGETS}
REPEATS_TOLD = 4.0  # a text replayed more often than this in an epoch is told of
SHARED_FORGETTING = 0.2  # of a file that is both replayed and measured, this part of its documents is only measured


@dataclass(frozen=True, slots=True)
class Prepared:
    """What the data half hands over.

    store: the sequences of all rows that can be supervised, held-out rows and replay included.
    held_out: the rows of each level of generalisation. texts: plain text to measure forgetting on.
    plan: which sequences every optimizer step trains on.
    validation: rows that the best step is chosen by, and nothing else; none where the recipe holds none out.
    """

    store: TokenStore
    held_out: dict[str, list[Conversation]]
    texts: list[str]
    plan: DataPlan
    validation: list[Conversation] = field(default_factory=list)


def prepare(run: RunFolder, tokenizer: Any, export_to: Path | None = None) -> Prepared:
    """Prepare the data of a run, or open what was prepared before from the same bytes.

    export_to: a folder in which the rows are written for other programs.
    """
    if export_to:
        refuse_other_folder(export_to)
    inputs = inputs_of(_files(run.recipe))
    key = _key(run.recipe, tokenizer, inputs)
    done = run.is_done("prepare", key)
    if done and (has_rows(run) or not export_to):
        say("Data: prepared before from the same files and settings.")
        TokenStore.open(run.path / "tokens" / "store").verify()
    else:
        if not done:  # done and without rows to export, the same bytes are written again
            _refuse_to_replace(run)
        with run.stage("prepare", key):
            _prepare(run, tokenizer, inputs)
    prepared = open_prepared(run, tokenizer)
    if export_to:
        export(run, export_to)
    return prepared


def _files(recipe: Recipe) -> list[Path]:
    """All files that data are read from."""
    places = [*recipe.data.sources, recipe.data.replay, recipe.evaluate.forgetting]
    paths = [place.path for place in places if place and place.path]
    paths += recipe.data.dedup.reference if recipe.data.dedup else ()
    paths += [file.path for file in recipe.data.decontaminate.against] if recipe.data.decontaminate else []
    templates = [template_path(source.templates.file) for source in recipe.data.sources if source.templates]
    embedding = recipe.data.dedup.embedding if recipe.data.dedup else None
    model = encoder_files(Path(embedding), EMBEDDING) if embedding else []
    return [*(file for path in paths for file in source_files(path)), *templates, *model]


def _key(recipe: Recipe, tokenizer: Any, inputs: Sequence[Input]) -> str:
    """A hash of all that the prepared data depends on: the bytes of the files, the recipe's words, and the code."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    encodes = is_encoder_decoder(recipe.base, trust_remote_code=recipe.trust_remote_code)
    return value_hash(
        {
            "code": __version__,
            "files": [given.sha256 for given in inputs],
            "data": recipe.data.model_dump(mode="json", exclude=WITHOUT_EFFECT),
            "forgetting": recipe.evaluate.forgetting
            and recipe.evaluate.forgetting.model_dump(mode="json", exclude={"max_rise"}),
            "supervision": recipe.train.model_dump(include=RULES) | ({"encoder_decoder": True} if encodes else {}),
            "seed": recipe.seed,
            "template": tokenizer.chat_template,
            "tokenizer": backend.to_str() if backend else tokenizer.get_vocab(),
        }
    )


def _refuse_to_replace(run: RunFolder) -> None:
    """Data that changed under a run that has been trained would make its model and report untrue."""
    trained = any((run.path / part).exists() for part in ("model", "checkpoints"))
    if run.facts["keys"].get("prepare") and trained:
        raise UserError(
            f"the data of {run.path} changed since it was trained (a file's bytes, the base's tokenizer, or the "
            f"version of Tunesmith); the run was left as it is. Train on the new data in another folder with --output, "
            f"or delete this one."
        )


def _prepare(run: RunFolder, tokenizer: Any, inputs: Sequence[Input]) -> None:
    recipe, ledger = run.recipe, Ledger(run.path / "ledger")
    labels: list[RowLabel] = []
    with ExitStack() as stack:
        as_read = stack.enter_context(Rows(run.path / "data" / "rows.jsonl"))
        for source in recipe.data.sources:
            read(source, ledger, lambda row: labels.append(as_read.append(row)))
        refuse_same_ids(label.id for label in labels)
        rows: Rows | StoredRows = as_read
        texts, replay = _plain_texts(recipe, ledger)
        refuse_unknown_clusters(recipe, labels)
        if is_wanted(recipe.data):
            stage = curated(rows, recipe.data, run.path / "data" / "rows", ledger)
            rows, labels = stack.enter_context(stage)
        refuse_changed(inputs)
        sides = split_rows(rows, labels, recipe, ledger)
        dropped = supervise(run, tokenizer, rows, [label for side in sides.values() for label in side], replay, ledger)
        held_out = [
            f"{side}\t{rows[label.place].to_json()}\n"
            for side in HELD_OUT
            for label in sides[side]
            if label.id not in dropped
        ]
        if recipe.data.mix.reasoning is not None:
            save_worked(run, rows, sides["train"])
        cover(run, rows, [label for label in sides["train"] if label.id not in dropped])
        kept = [label for side in sides.values() for label in side if label.id not in dropped]
        replayed = (text for text in replay if text.id not in dropped)
        write_rows(run.path / KEPT, chain(rows.picked(label.place for label in kept), replayed))
    placed: list[tuple[str, Sequence[RowLabel | Conversation]]] = [*sides.items(), (REPLAY, replay)]
    for place, side in placed:
        ledger.place((row.id for row in side if row.id not in dropped), place)
    ledger.save()
    write_inputs(ledger.folder, inputs)
    write_text(run.path / "data" / "held_out.tsv", "".join(held_out))
    write_json(run.path / "data" / "texts.json", texts)
    asked: list[RowLabel | Conversation] = [*sides["train"], *replay]
    trained = [row for row in asked if row.id not in dropped]
    np.save(run.path / TRAINED, trained_prompts(trained))


# Reading


def read(source: Source, ledger: Ledger, into: Callable[[Conversation], object]) -> None:
    """Read a source; its rows go `into` something, one by one."""
    if source.path:
        found = read_source(
            source.name,
            source.path,
            map={str(ours): column for ours, column in source.map.items()} if source.map else None,
            format=source.format,
            cluster=source.cluster,
            task=source.task,
            phrasings=phrasings_of(source, source.templates) if source.templates else None,
            sample=source.sample,
            seed=source.seed,
            into=into,
        )
    else:
        assert source.pocket, "the recipe gives each source one origin"
        for row in tasks.conversations(source.seed, source.pocket, source.name):
            into(row)
        found = SourceRows(
            source.name, "instruction data of the pocket world", (), source.pocket, source.pocket, [], []
        )
    _entered(found, f"read {source.name}", ledger, "templates.columns" if source.templates else "map")


def _entered(found: SourceRows, stage: str, ledger: Ledger, naming: str = "map") -> None:
    """naming: the key of the recipe that says what is in which column."""
    note = "; ".join(part for part in (found.format, found.note) if part)
    ledger.step(stage, found.read, found.kept, found.rejected, found.changed, note)
    left = f", {len(found.rejected):,} left out" if found.rejected else ""
    say(f"Data: {found.name}: {found.kept:,} rows{left}. {note}")
    if not found.kept:
        reasons = Counter(f"{drop.reason} ({drop.detail})" for drop in found.rejected).most_common(5)
        listed = "".join(f"\n  {count:,} rows: {reason}" for reason, count in reasons)
        raise DataError(
            f"source {found.name}: none of its {found.read:,} rows can be used. Understood as: {note}. Why:{listed}\n"
            f"Name its columns with `{naming}`, or leave the source out."
        )


def _plain_texts(recipe: Recipe, ledger: Ledger) -> tuple[list[str], list[Conversation]]:
    """Texts to measure forgetting on, and documents to replay; none is both."""
    forgetting, replay = recipe.evaluate.forgetting, recipe.data.replay
    measured = _documents(forgetting, "forgetting", recipe.seed, ledger) if forgetting else []
    replayed = _documents(replay, REPLAY, recipe.seed, ledger) if replay else []
    if forgetting:
        shared = {text.content_hash() for text in replayed} & {text.content_hash() for text in measured}
        most = min(forgetting.documents, int(SHARED_FORGETTING * len(measured)) if shared else len(measured))
        by_hash = sorted(measured, key=lambda text: seed_of(recipe.seed, "forgetting", text.content_hash()))
        kept = {text.id for text in by_hash[: max(most, 1)]}
        drops = [Drop(text.id, "forgetting", "not_sampled") for text in measured if text.id not in kept]
        measured = [text for text in measured if text.id in kept]
        ledger.step("forgetting", len(measured) + len(drops), len(measured), drops, note="plain text that is measured")
    hashes = {text.content_hash() for text in measured}
    drops = [Drop(text.id, REPLAY, "measured_for_forgetting") for text in replayed if text.content_hash() in hashes]
    kept_replay = [text for text in replayed if text.content_hash() not in hashes]
    if replay:
        ledger.step(REPLAY, len(replayed), len(kept_replay), drops, note="plain text that is replayed")
    ledger.place((text.id for text in measured), "forgetting")
    if recipe.data.decontaminate and kept_replay:
        kept_replay = free_of_items(kept_replay, recipe.data.decontaminate, ledger)
    return [text.response for text in measured], kept_replay


def _documents(place: Replay | Forgetting, name: str, seed: int, ledger: Ledger) -> list[Conversation]:
    if place.path:
        found = read_source(name, place.path, kind="text")
    else:
        assert place.pocket, "the recipe gives plain text one origin"
        made = corpus.documents(seed_of(seed, name), place.pocket)
        rows = [Conversation.from_text(f"{name}:{number}", text, name) for number, text in enumerate(made, 1)]
        found = SourceRows(name, "plain text of the pocket world", (), len(rows), len(rows), rows, [])
    _entered(found, f"read {name}", ledger)
    return found.rows


# Mixing and planning, from the files that preparing wrote


def planned(run: RunFolder, store: TokenStore, held_out: Sequence[str]) -> tuple[Members, dict[str, Any], DataPlan]:
    """What may be trained on, the mixture, and the plan of every step: a pure function of the recipe and the store.

    held_out: the ids of the rows that are not trained on.
    """
    members = members_of(store, held_out, worked_rows(run))
    order, mixture = mixture_of(run.recipe, members)
    train = run.recipe.train
    plan = plan_epochs(
        order,
        store.lengths,
        tokens_per_batch=train.tokens_per_batch,
        batches_per_step=train.tokens_per_step // train.tokens_per_batch,
        epochs=train.epochs,
        seed=run.recipe.seed,
    )
    return members, mixture, plan


def open_prepared(run: RunFolder, tokenizer: Any) -> Prepared:
    store = TokenStore.open(run.path / "tokens" / "store")
    held_out: dict[str, list[Conversation]] = {side: [] for side in HELD_OUT}
    for line in (run.path / "data" / "held_out.tsv").read_text(encoding="utf-8").split("\n")[:-1]:
        name, _, row = line.partition("\t")
        held_out[name].append(Conversation.from_json(row))
    members, mixture, plan = planned(run, store, [row.id for side in held_out.values() for row in side])
    write_json(run.path / "ledger" / "mixture.json", mixture)
    save_draws(run.path / "ledger", members.names, times_drawn(plan, members, len(store)))
    repeats = (mixture["replay"] or {}).get("repeats", 0.0)
    if repeats > REPEATS_TOLD:
        say(
            f"Note: an epoch replays each text {repeats:.1f} times; more plain text would keep the model from "
            f"learning these by heart."
        )
    template = {
        "chat_template": tokenizer.chat_template,
        "stop_tokens": tokenizer.convert_ids_to_tokens(stop_token_ids(tokenizer)),
    }
    write_json(
        run.path / "tokens" / "summary.json", summary_of(store, plan, run.recipe.train.tokens_per_batch) | template
    )
    validation = held_out.pop(VALIDATION)
    return Prepared(store, held_out, read_json(run.path / "data" / "texts.json"), plan, validation)


def tokenizer_of(recipe: Recipe, load: Callable[..., Any]) -> Any:
    """The base's tokenizer with the chat template that the recipe chooses; says which one it is."""
    tokenizer = load(recipe.base, trust_remote_code=recipe.trust_remote_code)
    encodes = is_encoder_decoder(recipe.base, trust_remote_code=recipe.trust_remote_code)
    chosen = chat_template_of(tokenizer, recipe.chat_template, recipe.template_args, encoder_decoder=encodes)
    tokenizer.chat_template = chosen.text
    stops = [tokenizer.convert_ids_to_tokens(stop) for stop in stop_token_ids(tokenizer)]
    say(f"Base: {recipe.base}. {chosen.said} An answer ends with {stops[0]}.")
    if "strftime_now" in str(chosen.text):
        say("Note: the chat template writes the date into prompts; the day of preparing is what is trained.")
    return tokenizer


def supervised_rows(rows: Sequence[Conversation], store: TokenStore) -> list[list[Encoded]]:
    """The sequences of each row, from the store."""
    index: dict[str, list[int]] = defaultdict(list)
    for number, row in enumerate(store.row_ids):
        index[row].append(number)
    return [[store[number] for number in index[row.id]] for row in rows]
