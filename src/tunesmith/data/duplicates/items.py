"""Evaluation items, from files of any format: what is asked, and what is answered, as texts to look for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tunesmith.base.conversation import Conversation
from tunesmith.base.errors import DataError
from tunesmith.data.sources.formats import Draft, mapped, nearest, recognise
from tunesmith.data.sources.messages import Rejected
from tunesmith.data.sources.read import source_files
from tunesmith.data.sources.records import read_records

Kind = Literal["question", "answer", "text"]


@dataclass(frozen=True, slots=True)
class Item:
    """An evaluation item. id: NAME:LINE as for rows. texts: of each its kind and itself; "text" is of unknown kind."""

    id: str
    texts: tuple[tuple[Kind, str], ...]


def item_of(row: Conversation) -> Item:
    """Each message but the system's is a text of its own: the last the answer, the others questions."""
    if row.is_text:
        return Item(row.id, (("text", row.response),))
    questions = [m.content for m in row.prompt if m.role != "system"]
    return Item(row.id, (*(("question", text) for text in questions), ("answer", row.response)))


def read_items(name: str, path: Path | str, map: Mapping[str, str] | None = None) -> list[Item]:
    """The items of an evaluation file, folder, glob or "hub:owner/name".

    An item that can't be read as a conversation (questions without answers, columns of other names) is not left out:
    every text that is anywhere in it is looked for. Raises DataError when there is nothing to read, or a line can't be
    decoded, since rows would then be trained that nobody compared, and when `map` names a column that no item has.
    """
    try:
        shape = mapped(map or {})
    except DataError as error:
        raise DataError(
            f"the `map` of evaluation file {path} names {', '.join(map or {})}, which is no whole item. Give it "
            f"instruction and response, or messages, or text; without a `map`, every text of an item is looked for."
        ) from error
    items: list[Item] = []
    columns: set[str] = set()
    files = source_files(path)
    for file in files:
        label = f"{file.name}:" if len(files) > 1 else ""
        for record in read_records(file):
            part = f".{record.part}" if record.part else ""
            id = f"{name}:{label}{record.number}{part}"
            if isinstance(record.value, Rejected):
                raise DataError(
                    f"{file}, item {record.number} can't be read ({record.value.reason}: {record.value.detail}), so "
                    f"what it holds could be trained on unseen. Mend or remove that line."
                )
            columns.update(record.value if isinstance(record.value, dict) else ())
            items += _read(id, record.value, shape)
    if not items:
        raise DataError(f"{path} holds no evaluation items, so nothing would be looked for. Check the path.")
    for key, column in (map or {}).items():
        if column not in columns:
            raise DataError(
                f"evaluation file {path}: `map` takes {key} from column {column!r}, and no item has it. "
                f"{nearest(column, columns)}"
            )
    return items


def _read(id: str, value: Any, shape: Any) -> list[Item]:
    shape = shape or (recognise(value) if isinstance(value, dict) else None)
    try:
        drafts = list(shape.read(value)) if shape else []
    except Rejected:
        drafts = []
    if drafts and all(isinstance(draft, Draft) for draft in drafts):
        ids = [id] if len(drafts) == 1 else [f"{id}.{number}" for number in range(1, len(drafts) + 1)]
        return [item_of(Conversation(one, draft.messages)) for one, draft in zip(ids, drafts, strict=True)]
    return [Item(id, tuple(("text", text) for text in dict.fromkeys(strings_of(value))))]


def strings_of(value: Any) -> Iterator[str]:
    """Every text that is anywhere in a value read from JSON."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from strings_of(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings_of(inner)
