"""The recipe's section `data`: what is read, and how it is mixed and held out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from tunesmith.data.mix import sum_fault
from tunesmith.recipe.coverage import Coverage
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


def _phrasings_per_row(value: Any) -> int | str:
    if value == "all" or (isinstance(value, int) and not isinstance(value, bool) and value > 0):
        return value  # type: ignore[no-any-return]
    raise ValueError(f"{value!r} must be a number of phrasings from 1, or `all`")


PerRow = Annotated[
    Any,
    BeforeValidator(_phrasings_per_row),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, {"const": "all", "type": "string"}]}),
]


class Templates(Section):
    """Prompt templates that put the rows of a table into words: several natural phrasings of one task."""

    file: Text
    """A YAML file (docs/phrasings.md), or the name of a shipped one; `tunesmith templates` lists these."""
    per_row: PerRow = 1
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
    """Take this many rows, drawn at random by `seed`, instead of all; with `templates`, rows of the table."""
    seed: int = 0
    """Seed of the sample, of the prompt templates that rows draw, or of the generated rows."""
    licence: Text | None = None
    """What its rows may be used under, as `apache-2.0`: told in the card that `prepare --export` writes."""

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


def _endless(value: object) -> object:
    return math.inf if value in ("inf", ".inf") else value


class Mix(Section):
    """How much of an epoch each group of rows gets."""

    by: Literal["cluster", "source"] = "cluster"
    """What the groups are."""
    unit: Literal["rows", "tokens"] = "rows"
    """What shares, `cap` and `total` count."""
    strategy: Literal["proportional", "equal", "temperature", "weights"] = "proportional"
    """`temperature` gives a group of n rows a share proportional to n^(1/temperature)."""
    temperature: Annotated[float, Field(ge=1, allow_inf_nan=True), BeforeValidator(_endless)] = 1.0
    """1 is proportional; the higher, the more equal, as all are at `inf`."""
    weights: Mapping[str, Annotated[float, Field(ge=0)]] | None = None
    """For the strategy `weights`: each group's share; they add up to 1."""
    normalise: bool = False
    """Divide the weights by their sum, so that any will do: `{math: 3, chat: 1}`."""
    cap: Count | None = None
    """This much of a group counts at most (FLAN: 3000 rows), so that a huge one leaves room; by default all does."""
    max_repeats: Annotated[float, Field(ge=1)] = 4.0
    """No group is drawn more often than this in an epoch: repeating few rows many times only teaches them by heart."""
    total: Count | None = None
    """Drawn per epoch, in the unit; by default as much as there is, of each group what counts."""
    reasoning: Fraction | None = None
    """The share of worked reasoning (thoughts, or steps before the result); by default what the strategy gives."""

    @model_validator(mode="after")
    def _no_value_without_effect(self) -> Mix:
        if self.strategy != "temperature":
            self._refuse_without_effect(("temperature",), f"with `strategy: {self.strategy}`; use `temperature`")
        elif self.temperature == 1.0:
            raise ValueError("`strategy: temperature` is proportional at `temperature: 1`; give one above 1, as 2")
        if self.strategy in ("equal", "weights") or self.temperature == math.inf:
            self._refuse_without_effect(("cap",), "where the sizes of groups have none; use another strategy")
        if (self.weights is not None) != (self.strategy == "weights"):
            raise ValueError("`weights` and `strategy: weights` need each other; one is missing")
        if self.weights is None:
            self._refuse_without_effect(("normalise",), "without `weights`")
        elif fault := sum_fault(self.weights, self.normalise):
            raise ValueError(fault)
        return self


class Replay(Section):
    """Plain text mixed in, trained on as in pretraining, against forgetting."""

    path: Text | None = None
    """A file, a folder, a glob, or `hub:owner/name` of plain text."""
    pocket: Count | None = None
    """Instead of `path`: this many documents generated from the pocket world."""
    licence: Text | None = None
    """What the texts may be used under, as `cc-by-sa-4.0`: told in the card that `prepare --export` writes."""
    share: Annotated[float, Field(ge=0, le=0.9)] = 0.05
    """The replayed part of all tokens trained on."""

    @model_validator(mode="after")
    def _one_origin(self) -> Replay:
        self._exactly_one("path", "pocket")
        return self


class Folds(Section):
    """Cross-validation: as many runs as folds, each with another fold held out."""

    of: Annotated[int, Field(ge=2, le=100)] = 5
    """How many folds the items are cut into."""
    fold: Annotated[int, Field(ge=0)] = 0
    """The one that this run holds out: 0, 1, ..."""

    @model_validator(mode="after")
    def _is_there(self) -> Folds:
        if self.fold >= self.of:
            raise ValueError(f"fold {self.fold} of {self.of} does not exist: they are 0 to {self.of - 1}")
        return self


class HoldOut(Section):
    """What is kept from training to measure three levels of generalisation."""

    items: Half = 0.05
    """Part of the items (what rows are made from) held out of every cluster."""
    phrasings: Half = 0.0
    """Part of each task's phrasings held out, where rows name their phrasing."""
    clusters: tuple[Text, ...] = ()
    """Task clusters held out whole."""
    relatives: Literal["flan"] | Mapping[Text, tuple[Text, ...]] | None = None
    """Clusters left out with those, as they give them away: by FLAN's rules, or `{paraphrase: [entailment]}`."""
    validation: Half = 0.0
    """Part of the other items that early stopping looks at, and nothing is reported of."""
    folds: Folds | None = None
    """Instead of `items`: one of several parts of all items, for data too few to hold any back for good."""
    near: Annotated[float, Field(gt=0, le=1)] | None = 0.8
    """Rows with this Jaccard similarity of word n-grams (instruction and response) stay on one side; `null`: any."""
    length_strata: Annotated[int, Field(ge=1, le=20)] = 4
    """Items are held out evenly over this many ranges of length in every cluster; 1 looks at no length."""

    @model_validator(mode="after")
    def _no_value_without_effect(self) -> HoldOut:
        if self.folds:
            self._refuse_without_effect(("items",), "beside `folds`, which hold out a part of the items each")
        if not self.clusters:
            self._refuse_without_effect(("relatives",), "without `clusters` that are held out")
        return self


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
    coverage: Coverage | None = Coverage()
    """What the rows that are trained on should cover; `null` measures nothing."""
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
