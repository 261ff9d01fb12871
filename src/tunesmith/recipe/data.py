"""The recipe's section `data`: what is read, and how it is mixed and held out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, model_validator

from tunesmith.recipe.curation import Clean, DataEngine, Decontaminate, Dedup, Filter
from tunesmith.recipe.section import Column, Count, Fraction, Half, Section, Text, name_of

Format = Literal["sharegpt", "messages", "instances", "alpaca", "prompt_completion", "turns", "text"]
# What the plain texts are called in row ids, where a source of the same name would collide with them.
PLAIN_TEXTS = ("replay", "forgetting")
_LABELS: tuple[Column, ...] = ("cluster", "task", "item")  # what a table with prompt templates may say of its rows
# The columns that a `map` leaves unread when it names this one: a row is read as one thing.
_UNREAD_BESIDE: Mapping[Column, tuple[Column, ...]] = {
    "messages": ("instruction", "input", "response", "text"),
    "text": ("instruction", "input", "response", "system", "tools"),
}


class Templates(Section):
    """Prompt templates that put the rows of a table into words: several natural phrasings of one task."""

    file: Text
    """A YAML file (docs/phrasings.md), or the name of a shipped one; `tunesmith templates` lists these."""
    per_row: Count | Literal["all"] = 1
    """How many phrasings of each row, drawn by the source's `seed` among those that fit it; or `all` that fit."""
    inverted: Fraction | None = None
    """The part of draws that ask for the question of an answer; by default each template is as likely as another."""
    worked: Fraction | None = None
    """The part of draws whose response holds the worked reasoning; by default as `inverted`."""
    shuffle_options: bool = False
    """List a row's options in an order drawn by the seed, unless one of them speaks of others by place or letter."""
    columns: Mapping[Text, Text] | None = None
    """Which column of the table holds what a template names, as `{premise: sentence1, hypothesis: sentence2}`."""

    @model_validator(mode="after")
    def _no_value_without_effect(self) -> Templates:
        if self.per_row == "all":
            self._refuse_without_effect(("inverted", "worked"), "with `per_row: all`, which takes every template")
        if (self.inverted or 0) + (self.worked or 0) > 1:
            raise ValueError(f"`inverted` and `worked` add up to {self.inverted + self.worked:g}, more than 1")  # type: ignore[operator]
        return self


class Source(Section):
    """Where rows of instruction data come from."""

    path: Text | None = None
    """A file, a folder, a glob, or `hub:owner/name` for a data set of the Hub. Relative to the recipe's folder."""
    pocket: Count | None = None
    """Instead of `path`: this many rows generated from the pocket world."""
    name: Text = Field(default_factory=lambda given: name_of(given))
    """What this source is called in row ids and reports; by default the file's name without its ending."""
    format: Format | None = None
    """The format all rows have to be in; by default each row's is recognised by its columns."""
    map: Mapping[Column, Text] | None = None
    """Which column holds what, for files in no known format, e.g. `{instruction: question, response: answer}`."""
    templates: Templates | None = None
    """Prompt templates that put the rows into words, for a table of columns and labels; by default rows are read as
    the instructions and responses that they hold."""
    cluster: str = ""
    """The task cluster of all rows that do not name one; by default the source's name."""
    task: str = ""
    """The task of all rows that do not name one."""
    sample: Count | None = None
    """Take this many rows, drawn at random by `seed`, instead of all."""
    seed: int = 0
    """Seed of the sample, of the prompt templates that rows draw, or of the generated rows."""

    @model_validator(mode="after")
    def _one_origin(self) -> Source:
        self._exactly_one("path", "pocket")
        return self

    @model_validator(mode="after")
    def _name_is_free(self) -> Source:
        if self.name in PLAIN_TEXTS:
            raise ValueError(
                f"a source can't be called {self.name}: so are the rows of plain text, and two rows would have one id; "
                "give it another `name`"
            )
        return self

    @model_validator(mode="after")
    def _no_value_without_effect(self) -> Source:
        if self.pocket is not None:
            reason = "with `pocket`, whose rows are made as they are to be; take it out, or use `path`"
            self._refuse_without_effect(("format", "map", "templates", "cluster", "task", "sample"), reason)
        if self.templates is not None:
            self._refuse_without_effect(("format",), "with `templates`, which take a table of any columns")
            if lost := [key for key in self.map or () if key not in _LABELS]:
                raise ValueError(
                    f"`map` reads nothing into {', '.join(lost)} beside `templates`, which make the messages; say what "
                    f"their columns are called under `templates.columns`. `map` may name {', '.join(_LABELS)}"
                )
        for column, unread in _UNREAD_BESIDE.items():
            if self.map and column in self.map and (lost := [key for key in unread if key in self.map]):
                raise ValueError(f"`map` with {column} reads nothing from {', '.join(lost)}; keep what the rows hold")
        return self


class Mix(Section):
    """How much of an epoch each group of rows gets."""

    by: Literal["cluster", "source"] = "cluster"
    """What the groups are."""
    strategy: Literal["proportional", "equal", "temperature", "weights"] = "proportional"
    """`temperature` gives a group of n rows a share proportional to n^(1/temperature)."""
    temperature: Annotated[float, Field(ge=1)] = 1.0
    """1 is proportional; the higher, the more equal."""
    weights: Mapping[str, Fraction] | None = None
    """For the strategy `weights`: each group's share; they add up to 1."""
    max_repeats: Annotated[float, Field(ge=1)] = 4.0
    """No row is drawn more often than this in an epoch: repeating a few rows many times only teaches them by heart."""
    total: Count | None = None
    """Rows drawn per epoch; by default as many as there are."""

    @model_validator(mode="after")
    def _no_value_without_effect(self) -> Mix:
        if self.strategy != "temperature":
            self._refuse_without_effect(("temperature",), f"with `strategy: {self.strategy}`; use `temperature`")
        elif self.temperature == 1.0:
            raise ValueError("`strategy: temperature` is proportional at `temperature: 1`; give one above 1, as 2")
        if (self.weights is not None) != (self.strategy == "weights"):
            raise ValueError("`weights` and `strategy: weights` need each other; one is missing")
        return self


class Replay(Section):
    """Plain text mixed in, trained on as in pretraining, against forgetting."""

    path: Text | None = None
    """A file, a folder, a glob, or `hub:owner/name` of plain text."""
    pocket: Count | None = None
    """Instead of `path`: this many documents generated from the pocket world."""
    share: Annotated[float, Field(ge=0, le=0.9)] = 0.05
    """The replayed part of all tokens trained on."""

    @model_validator(mode="after")
    def _one_origin(self) -> Replay:
        self._exactly_one("path", "pocket")
        return self


class HoldOut(Section):
    """What is kept from training to measure three levels of generalisation."""

    items: Half = 0.05
    """Part of the items (what rows are made from) held out of every cluster."""
    phrasings: Half = 0.0
    """Part of each task's phrasings held out, where rows name their phrasing."""
    clusters: tuple[Text, ...] = ()
    """Task clusters held out whole."""


class Data(Section):
    """What is read, and how it is mixed and split."""

    sources: Annotated[tuple[Source, ...], Field(min_length=1)]
    """At least one source of instruction data."""
    clean: Clean | None = None
    """What is put right in rows; `{}` takes the defaults. By default rows stay as they are."""
    filter: Filter | None = None
    """Which rows are dropped or flagged; `{}` takes the defaults. By default all are kept."""
    dedup: Dedup | None = None
    """Which rows are duplicates; `{}` takes the defaults. By default all are kept."""
    decontaminate: Decontaminate | None = None
    """Which evaluation files no row may hold an item of; by default none."""
    engine: DataEngine = DataEngine()
    """What these stages run on; by default this machine."""
    mix: Mix = Mix()
    """How much of an epoch each group of rows gets; by default what its rows are of all."""
    replay: Replay | None = None
    """Plain text mixed in against forgetting; by default none."""
    hold_out: HoldOut = HoldOut()
    """What is kept from training to measure with; by default a part of the items."""

    @model_validator(mode="after")
    def _names_differ(self) -> Data:
        twice = [name for name, count in Counter(source.name for source in self.sources).items() if count > 1]
        if twice:
            raise ValueError(f"several sources are called {', '.join(twice)}; give each a `name` of its own")
        return self
