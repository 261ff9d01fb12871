"""Why a model does well in its run and badly in production: the run's data against a log of what was asked of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tunesmith.base.conversation import Conversation
from tunesmith.base.errors import DataError, UserError
from tunesmith.base.files import write_json
from tunesmith.base.progress import say, track
from tunesmith.base.random import seed_of
from tunesmith.data.sources.read import read_source, records_of
from tunesmith.evaluate.diagnose import MOST_COMPARED, Logged, diagnose
from tunesmith.model.load import load_tokenizer
from tunesmith.recipe import load_recipe
from tunesmith.report.diagnosis import print_diagnosis, write_diagnosis
from tunesmith.tokens.store import TokenStore

FAILED = ("failed", "failure", "error", "is_error", "bad")
SUCCEEDED = ("ok", "success", "succeeded", "correct", "passed", "good", "resolved")
EXPECTED = ("expected", "reference", "ideal", "correction")


def diagnose_run(run: Path, log: Path, *, failed: str | None = None) -> int:
    """Compare a run's training data with a log, print what was found, and write diagnosis.json and diagnosis.html.

    failed: the log's column that says which rows failed (true, 1 or a text other than "no"); by default one of the
    usual names is looked for, and without any all rows count as failures.
    """
    rows, by = read_log(log, failed)
    trained = trained_instructions(run)
    if len(trained) < 2:
        raise UserError(f"{run} trained on {len(trained)} instructions; there is nothing to compare a log with.")
    say(f"Log: {len(rows):,} rows; {by}. Trained: {len(trained):,} instructions.")
    found = diagnose(rows, trained)
    write_json(run / "diagnosis.json", asdict(found) | {"log": str(log), "failures_by": by})
    print_diagnosis(found)
    say(f"Report: {write_diagnosis(found, run / 'diagnosis.html', run.resolve().name, log.name, by)}")
    return 0


def read_log(path: Path, failed: str | None = None) -> tuple[list[Logged], str]:
    """The rows of a log in any format that sources may have, and a sentence about how failures were told.

    A row whose response is empty is a failure whatever its columns say.
    Raises UserError for a column that is not there and for fewer than two rows, DataError for an unreadable log.
    """
    columns = _columns(path)
    if failed and failed not in columns:
        raise UserError(f"{path} has no column {failed!r}, so failures can't be told. It has: {', '.join(columns)}.")
    bad = failed or next((name for name in FAILED if name in columns), None)
    good = None if bad else next((name for name in SUCCEEDED if name in columns), None)
    wanted = next((name for name in EXPECTED if name in columns), None)
    source = read_source("log", path, unanswered=True)
    found = source.rows
    if len(found) < 2:
        why = (
            f" Of {source.read:,} rows, the first that was refused: {source.rejected[0].detail}"
            if source.rejected
            else ""
        )
        raise UserError(
            f"{path} holds {len(found)} rows with an instruction and a response; a diagnosis needs two.{why}"
        )
    rows = [_logged(row, bad, good, wanted) for row in found]
    if bad or good:
        by = f"{sum(row.failed for row in rows):,} failed, by the column {bad or good}"
    else:
        by = "no column says which failed, so all count as failures (name one with --failed)"
    if silent := sum(not row.response for row in rows):
        by += f"; empty responses among the failures: {silent:,}"
    if source.rejected:
        by += f"; {len(source.rejected):,} more rows left out, the first because {source.rejected[0].detail}"
    return rows, by


def _columns(path: Path) -> list[str]:
    """The columns that any row has: some logs name a failure only where there is one."""
    columns: dict[str, None] = {}
    for file, _, record in records_of(path):
        if isinstance(record.value, dict):
            columns |= dict.fromkeys(record.value)
        elif not columns:
            raise DataError(f"{file}, item {record.number}: no row with columns, so there is nothing to diagnose.")
    return list(columns)


def _logged(row: Conversation, bad: str | None, good: str | None, wanted: str | None) -> Logged:
    instruction = "\n".join(message.content for message in row.prompt if message.role != "system")
    failed = _is_true(row.extra.get(bad)) if bad else not _is_true(row.extra.get(good)) if good else True
    calls = row.messages[-1].tool_calls
    response = row.response.strip() or (json.dumps(calls) if calls else "")  # a call of a tool says something
    expected = row.extra.get(wanted) if wanted else None
    return Logged(row.id, instruction, response, "" if expected is None else str(expected), failed or not response)


def _is_true(value: Any) -> bool:
    if isinstance(value, str):
        return value.strip().casefold() not in ("", "no", "false", "0", "none", "null", "n")
    return bool(value)


def trained_instructions(run: Path) -> list[str]:
    """What the rows that a run trained on ask, from its token store: as the model saw it, whatever the sources say now.

    At most MOST_COMPARED rows, drawn at random. The words of the chat template around a prompt are taken off where
    they stand at its start and end.
    """
    if not (run / "tokens" / "store").is_dir():
        raise UserError(f"{run} has no prepared data, so there is nothing to compare with. Run its recipe first.")
    recipe = load_recipe(str(run / "recipe.yaml")).recipe
    folder = run / "model"
    tokenizer = load_tokenizer(
        str(folder) if (folder / "tokenizer_config.json").is_file() else recipe.base,
        trust_remote_code=recipe.trust_remote_code,
    )
    places = pq.read_table(run / "ledger" / "places.parquet").to_pydict()
    trained = {row for row, place in zip(places["row"], places["place"], strict=True) if place == "train"}
    store = TokenStore.open(run / "tokens" / "store")
    wanted = [place for place, row in enumerate(store.row_ids) if row in trained]
    wanted = sorted(wanted, key=lambda place: seed_of(0, "diagnose", store.row_ids[place]))[:MOST_COMPARED]
    start, end = _around(tokenizer)
    prompts = (text.removeprefix(start).removesuffix(end).strip() for text in _prompts(store, wanted, tokenizer))
    return [prompt for prompt in prompts if prompt]


def _prompts(store: TokenStore, wanted: list[int], tokenizer: Any) -> Iterator[str]:
    for place in track(wanted, "Reading what was trained", len(wanted)):
        sequence = store[place]
        supervised = sequence.supervised.nonzero()[0]
        if len(supervised) and supervised[0] > 1:  # a plain text is supervised from its start
            ids = sequence.ids[: supervised[0]]
            yield tokenizer.decode(ids, skip_special_tokens=True).strip()


def _around(tokenizer: Any) -> tuple[str, str]:
    """What the chat template writes before and after a lone instruction, without special tokens."""
    if not tokenizer.chat_template:
        return "", ""
    probe = "instruction of the probe"
    messages = [{"role": "user", "content": probe}]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    start, found, end = tokenizer.decode(ids, skip_special_tokens=True).strip().partition(probe)
    return (start.lstrip(), end.rstrip()) if found else ("", "")
