"""The recipe's section `evaluate`: how base and tuned model are compared."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tunesmith.recipe.section import Count, Section, Text

PromptStyle = Literal["chat", "plain"]


class Forgetting(Section):
    """Bits per byte on plain text, base against tuned: did the model lose what it knew?"""

    path: Text | None = None
    """A file, a folder, a glob, or `hub:owner/name` of plain text that is not trained on."""
    pocket: Count | None = None
    """Instead of `path`: this many documents generated from the pocket world."""
    documents: Count = 200
    """At most this many documents are measured."""
    max_rise: Annotated[float, Field(ge=0)] | None = None
    """Largest rise allowed, relative to the base (0.02 is 2%); above it the run ends with exit code 3."""

    @model_validator(mode="after")
    def _one_origin(self) -> Forgetting:
        self._exactly_one("path", "pocket")
        return self


class Evaluate(Section):
    """How base and tuned model are compared, on the same held-out rows."""

    items: Annotated[int, Field(ge=0)] = 200
    """Rows per level of generalisation that are answered and scored; 0 for none."""
    losses: Annotated[int, Field(ge=0)] = 1000
    """Rows per level whose response loss is measured; 0 for none."""
    max_new_tokens: Count = 256
    """Longest answer, in tokens; a longer one is cut, counted, and scored as it is."""
    metric: Literal["auto", "exact_match", "token_f1", "rouge_l", "number"] = "auto"
    """By task, `auto` takes `number` for responses with `#### x`, `exact_match` for short ones, or `rouge_l`."""
    base_styles: Annotated[tuple[PromptStyle, ...], Field(min_length=1)] = ("chat", "plain")
    """How the base model is asked: by the chat template, by a plain prompt, or both, counting the better."""
    forgetting: Forgetting | None = None
    """Plain text on which base and tuned model are compared; by default none."""
