"""The recipe's section `data.coverage`: what the rows that are trained on should cover."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, model_validator

from tunesmith.data.coverage.category import Category
from tunesmith.recipe.section import Count, Fraction, Section, Text


class Coverage(Section):
    """What the rows that are trained on should cover; where they fall short, a warning says so, and nothing else."""

    categories: Annotated[int, Field(ge=0)] = 10
    """So many kinds of task should have `rows` rows or more; 0 asks for none."""
    rows: Count = 500
    """Least rows of a kind of task."""
    min_multi_turn: Fraction = 0.10
    """Least share of rows with several turns; 0.10 to 0.15 is wanted of a model that is to chat."""
    max_multi_turn: Fraction = 0.15
    """Most of them; 1 allows any number."""
    min_worked: Fraction = 0.03
    """Least share of rows with worked reasoning."""
    given: Mapping[Text, Category] = {}
    """Kinds of task of whole clusters, as `{my_reviews: classification}`; others are recognised row by row."""
    sample: Annotated[int, Field(ge=100)] = 20_000
    """Most rows that are looked at, drawn by the seed; counts of all rows follow from their shares."""

    @model_validator(mode="after")
    def _turns_can_be_met(self) -> Coverage:
        if self.min_multi_turn > self.max_multi_turn:
            raise ValueError(
                f"`min_multi_turn` is {self.min_multi_turn:g} and `max_multi_turn` {self.max_multi_turn:g}, so no data "
                f"could meet both; lower the first or raise the second"
            )
        return self
