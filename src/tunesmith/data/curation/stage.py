"""What a stage of curation says of a row: kept as it is, changed, flagged, or dropped with its reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tunesmith.base.conversation import Conversation


@dataclass(frozen=True, slots=True)
class Change:
    """Something a stage changed in a row. what: in a word or two, counted by it. before, after: the text, cut short."""

    what: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a row.

    row: as it goes on, None if it is dropped. reason, detail: why it is, the reason being the ledger's short word.
    changes: what was changed in it. flags: what a stage remarks of a row that it keeps.
    """

    row: Conversation | None
    reason: str = ""
    detail: str = ""
    changes: tuple[Change, ...] = ()
    flags: tuple[str, ...] = ()

    @classmethod
    def dropped(cls, reason: str, detail: str) -> Outcome:
        return cls(None, reason, detail)


Stage = Callable[[Conversation], Outcome]
"""A stage that looks at one row at a time; a pure function, so that it may run in any process."""
