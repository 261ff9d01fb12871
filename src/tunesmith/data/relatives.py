"""Task clusters that give one another away: a cluster that is held out whole is not new if a relative of it is trained.

The rules of FLAN (Wei et al., arXiv:2109.01652): paraphrase and natural language inference are each left out when the
other is measured; so are reading comprehension with commonsense on one side, and reading comprehension and commonsense
on the other.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal

from tunesmith.base.errors import UserError
from tunesmith.data.sources.formats import nearest

Relatives = Literal["flan"] | Mapping[str, Sequence[str]]

_PARAPHRASE = ("paraphrase", "paraphrases", "paraphrasing", "paraphrase_identification", "paraphrase_detection")
_INFERENCE = ("nli", "natural_language_inference", "entailment", "textual_entailment", "recognizing_textual_entailment")
_READING = ("reading_comprehension", "read_comp", "rc", "extractive_qa")
_COMMONSENSE = ("commonsense", "commonsense_reasoning", "common_sense", "common_sense_reasoning")
_BOTH = (
    *("reading_comprehension_with_commonsense", "reading_comprehension_commonsense"),
    *("read_comp_with_commonsense", "read_comp_w_commonsense", "rc_with_commonsense"),
)
_APART = ((_PARAPHRASE, _INFERENCE), (_BOTH, _READING), (_BOTH, _COMMONSENSE))  # both ways


def relatives_of(held: Sequence[str], present: Collection[str], relatives: Relatives) -> dict[str, str]:
    """Each present cluster that may not be trained, and the held-out one that it gives away.

    relatives: FLAN's rules, whose clusters are known by their usual names, or for held-out clusters those that go with
    them. Raises UserError where a cluster is named that is not held out, or not there.
    """
    pairs = flan_pairs(held, present) if relatives == "flan" else _given(held, present, relatives)
    found: dict[str, str] = {}
    for cluster, relative in pairs:
        if relative not in held:
            found.setdefault(relative, cluster)
    return found


def flan_pairs(held: Sequence[str], present: Iterable[str]) -> list[tuple[str, str]]:
    """(held-out cluster, present cluster that FLAN leaves out with it)."""
    others = sorted(present)
    return [(cluster, other) for cluster in held for other in others if _are_apart(_plain(cluster), _plain(other))]


def _are_apart(one: str, other: str) -> bool:
    return any((one in a and other in b) or (one in b and other in a) for a, b in _APART)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.casefold()).strip("_")


def _given(
    held: Sequence[str], present: Collection[str], relatives: Mapping[str, Sequence[str]]
) -> list[tuple[str, str]]:
    for cluster, others in relatives.items():
        if cluster not in held:
            raise UserError(
                f"data.hold_out.relatives names {cluster!r}, which is not held out, so nothing would come of it. Add "
                f"it to data.hold_out.clusters, or take it out."
            )
        for other in others:
            if other not in present:
                raise UserError(
                    f"data.hold_out.relatives of {cluster!r} names {other!r}, and no row belongs to it, so nothing "
                    f"would be left out. {nearest(other, present)}"
                )
    return [(cluster, other) for cluster, others in relatives.items() for other in others]
