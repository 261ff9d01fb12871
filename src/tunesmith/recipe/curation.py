"""The sections of a recipe that curate rows. A field's docstring is its description in `tunesmith schema`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, model_validator

from tunesmith.recipe.section import Column, Count, Fraction, Section, Text, name_of


class Clean(Section):
    """Rows put right: broken text, empty phrases around responses, white space. Code is never touched."""

    repair: bool = True
    """Undo mojibake (`naÃ¯ve`) and drop control characters; text that is straight stays as it is."""
    preambles: bool = True
    """Remove "Sure!", "Here is a list:", "As an AI language model, ..." where what remains stands by itself."""
    closings: bool = True
    """Remove "I hope this helps!" and offers of more help from the end of responses."""
    white_space: bool = True
    """No space at the ends of lines, and one blank line at most in a row."""


class Filter(Section):
    """Rows that are not worth training on; each rule is `off`, `flag` (counted, and kept) or `drop`."""

    min_instruction_words: Annotated[int, Field(ge=0)] = 1
    """Least words of all the user's messages of a row; a letter of Chinese, Japanese or Korean counts as one."""
    max_instruction_words: Count | None = None
    """Most of them; by default any number."""
    min_response_words: Annotated[int, Field(ge=0)] = 1
    """Least words of all the assistant's messages of a row, unless it calls tools."""
    max_response_words: Count | None = None
    """Most of them; by default any number."""
    repetition: Literal["off", "flag", "drop"] = "drop"
    """Responses of 50 words or more that say the same lines, sentences or n-grams again (Gopher, arXiv:2112.11446)."""
    repetition_leniency: Annotated[float, Field(ge=0.5, le=5)] = 2.5
    """Gopher's thresholds times this; at 1, as for web pages, 7% of worked arithmetic would be dropped."""
    refusals: Literal["off", "flag", "drop"] = "flag"
    """Responses that begin by refusing, in English."""
    placeholders: Literal["off", "flag", "drop"] = "drop"
    """Inputs and responses that were never filled in; unless `off`, `<noinput>` leaves the prompt."""
    copies: Literal["off", "flag", "drop"] = "drop"
    """Responses of ten words or more that are the whole instruction again."""
    open_fences: Literal["off", "flag", "drop"] = "drop"
    """Responses with a code block that is not closed: they were cut."""
    languages: tuple[Text, ...] = ()
    """ISO 639 codes; responses in another are dropped, where there is enough prose to tell. By default all are kept."""
    language_sureness: Fraction = 0.8
    """How sure the recognition of another language has to be."""
    min_relevance: Fraction = 0.0
    """Least share of words that instruction and response share; 0 is off, 0.02 finds half of swapped responses."""
    personal: Literal["off", "flag", "redact", "drop"] = "flag"
    """Rows with personal data; `redact` puts [email], [phone] ... in its place, in tool calls and reasoning too."""
    personal_kinds: tuple[Literal["email", "phone", "iban", "card", "key", "ip"], ...] = (
        *("email", "phone", "iban", "card", "key"),
    )
    """What is looked for. IP addresses are seldom anyone's, so not by default."""


class Dedup(Section):
    """Rows that say the same: one of each group is kept, and the ledger names it."""

    exact: bool = True
    """Drop rows whose texts are equal but for case, white space and Unicode form."""
    near: Annotated[float, Field(gt=0, le=1)] | None = 0.8
    """Least Jaccard similarity of the sets of word n-grams that makes two rows duplicates; `null` compares none."""
    ngram: Count = 5
    """Words of an n-gram."""
    semantic: Annotated[float, Field(gt=0, le=1)] | None = None
    """Least cosine of vectors that makes two rows duplicates, as 0.95; by default none are compared by these."""
    embedding: Text | None = None
    """The folder of a local embedding model that makes those vectors; by default they are TF-IDF after SVD."""
    over: Literal["instruction", "response", "both"] = "both"
    """What is compared; of both, each has to be alike."""
    keep: Literal["longest", "first", "best"] = "longest"
    """Which row of a group is kept; `best` is that with the highest `score`."""
    score: str = ""
    """The column that holds a row's score, for `keep: best`."""
    reference: tuple[Text, ...] = ()
    """Files whose rows are known already: what is in them is dropped."""

    @model_validator(mode="after")
    def _score_is_there(self) -> Dedup:
        if (self.keep == "best") != bool(self.score):
            raise ValueError("`keep: best` and `score` need each other; one is missing")
        return self

    @model_validator(mode="after")
    def _no_value_without_effect(self) -> Dedup:
        if self.semantic is None:
            self._refuse_without_effect(("embedding",), "without `semantic`, the least cosine of duplicates, as 0.95")
        return self


class EvaluationFile(Section):
    """Items that a model will be measured by, so that no row may hold one."""

    path: Text
    """A file, a folder, a glob, or `hub:owner/name`, in any format. Relative to the recipe's folder."""
    name: Text = Field(default_factory=lambda given: name_of(given))
    """What its items are called in the ledger; by default the file's name without its ending."""
    map: Mapping[Column, Text] | None = None
    """Which column holds what, where it is in no known format; without it, all texts of an item are looked for."""


class Decontaminate(Section):
    """Rows that hold an evaluation item: its whole text, thirteen of its words in a row, or most of its n-grams."""

    against: Annotated[tuple[EvaluationFile, ...], Field(min_length=1)]
    """The evaluation files."""
    near: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Least share of an item's n-grams of four words that makes a row contaminated."""
    answers: bool = True
    """Look for answers of thirteen words or more too, not for questions alone."""


class DataEngine(Section):
    """What the data stages run on; the result is the same to the byte whatever is chosen."""

    ray: Text | None = None
    """Address HOST:PORT of a Ray cluster that asks for a token (docs/engine.md); by default this machine works."""
    processes: Count | None = None
    """How many processes work; by default one a core of this machine, or of the cluster."""
