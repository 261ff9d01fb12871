"""What all sections of a recipe share: their base, the kinds of their values, and the name of a source by default.

Values are strict (no "yes" for a number, no 1 for a name); unknown keys are refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0, le=1)]
Half = Annotated[float, Field(ge=0, le=0.5)]
Count = Annotated[int, Field(ge=1)]
Text = Annotated[str, Field(min_length=1)]
Column = Literal[
    "instruction", "input", "response", "system", "text", "messages", "tools", "cluster", "task", "phrasing", "item"
]  # fmt: skip


class Section(BaseModel):
    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )

    def _exactly_one(self, *keys: str) -> None:
        given = [key for key in keys if getattr(self, key) is not None]
        if len(given) != 1:
            choice = " or ".join(f"`{key}`" for key in keys)
            found = " and ".join(f"`{key}`" for key in given) if given else "neither"
            raise ValueError(f"needs exactly one of {choice}; it has {found}")

    def _refuse_without_effect(self, keys: Iterable[str], reason: str) -> None:
        """Refuse values without effect. A default is none: the complete recipe of a run writes every one out."""
        given = [key for key in keys if getattr(self, key) != type(self).model_fields[key].default]
        if given:
            names = " and ".join(f"`{key}`" for key in given)
            raise ValueError(f"{names} {'has' if len(given) == 1 else 'have'} no effect {reason}")


def name_of(given: Mapping[str, Any]) -> str:
    """The name a source gets from where it comes from; `given` lacks what was itself at fault."""
    path = given.get("path")
    if not path:
        return "pocket"
    if path.startswith("hub:"):
        return str(path.removeprefix("hub:").split(":")[0].split("/")[-1])
    plain = [part for part in PurePath(path).parts if not set(part) & set("*?[")]
    return (plain[-1] if plain else "data").split(".")[0] or "data"
