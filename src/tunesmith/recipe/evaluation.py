"""The recipe's section `evaluate`: how base and tuned model are compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import PurePath
from typing import Annotated, Literal

from pydantic import Field, model_validator

from tunesmith.recipe.section import Column, Count, Section, Text, name_of

PromptStyle = Literal["chat", "plain"]
Metric = Literal[
    "auto", "exact_match", "token_f1", "number", "rouge_1", "rouge_2", "rouge_l", "rouge_1_stemmed", "rouge_2_stemmed",
    "rouge_l_stemmed", "accuracy", "bleu", "chrf", "macro_f1", "bertscore"
]  # fmt: skip


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


class BertScore(Section):
    """The model that computes the metric `bertscore`: how alike two texts are in its contextual embeddings."""

    model: Text
    """A local folder with the model, as roberta-large: one made for embeddings, not one that is compared here."""
    layer: Annotated[int, Field(ge=0)] | None = None
    """Whose output is compared, 0 being the embeddings; by default the best known for a model of this name."""
    idf: bool = False
    """Weigh words by how few of the expected responses hold them."""


class Decoding(Section):
    """How answers are generated."""

    beams: Annotated[int, Field(ge=1, le=64)] = 1
    """Beams of a beam search; 1 takes the most likely token each time, or draws."""
    length_penalty: float = 1.0
    """For beams: above 0 favours long answers, below short ones."""
    temperature: Annotated[float, Field(ge=0, le=100)] = 0.0
    """0 takes the most likely token; above, tokens are drawn by the recipe's seed."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """For draws: from the most likely tokens that together have this probability."""
    top_k: Annotated[int, Field(ge=0)] = 0
    """For draws: from this many most likely tokens; 0 is all."""

    @model_validator(mode="after")
    def _no_value_without_effect(self) -> Decoding:
        if self.beams > 1:
            self._refuse_without_effect(
                ("temperature", "top_p", "top_k"), "with `beams`; take it out, or set beams to 1"
            )
        else:
            self._refuse_without_effect(("length_penalty",), "without `beams`; take it out, or give 2 beams or more")
        if not self.temperature:
            self._refuse_without_effect(("top_p", "top_k"), "at `temperature: 0`; give one above 0, as 0.7")
        return self


class Suite(Section):
    """Items that base and tuned model are examined with besides the held-out rows: a file, or a benchmark."""

    kind: Literal["answers", "choice", "instructions", "questions", "loss", "text", "benchmark"] = "answers"
    """`answers` are compared with references, `choice` is among options, `instructions` are verified by program,
    `questions` are answered over turns and kept for a judge, `loss` is that of responses, `text` bits per byte."""
    path: Text | None = None
    """A file, a folder, a glob, or `hub:owner/name`. `instructions` are built in, where no path is given."""
    task: Text | None = None
    """For `benchmark`: a task of the lm-evaluation-harness, by name or the path of its YAML file."""
    name: Text = Field(default_factory=lambda given: _suite_name(given))
    """What it is called in files and reports; by default the file's name without its ending, or the task's."""
    map: Mapping[Column, Text] | None = None
    """Which column holds what, for files in no known format."""
    items: Count | None = None
    """This many items (of a benchmark, of each of its tasks), drawn at random by the recipe's seed; by default all."""
    metric: Metric = "auto"
    """For `answers`; see `evaluate.metric`."""
    normalise: Literal["raw", "characters", "bytes", "tokens", "unconditional"] = "characters"
    """For `choice`: options by their log-likelihood as it is, for each character (lm-eval's acc_norm), byte or token,
    or less that behind no question."""
    max_new_tokens: Count | None = None
    """Longest answer, in tokens; by default `evaluate.max_new_tokens`. A benchmark's is its task's own."""
    guard: Annotated[float, Field(ge=0)] | None = None
    """How much worse than the base the tuned model may be: of a score in points (0.02 is 2 points), of a loss or bits
    per byte relative to the base's. More ends the run with exit code 3."""
    allow_trained: bool = False
    """Examine with items whose prompts were trained on; they are counted. By default that is refused."""

    @model_validator(mode="after")
    def _one_origin(self) -> Suite:
        if self.kind == "benchmark":
            if self.task is None or self.path is not None:
                raise ValueError("`kind: benchmark` needs a `task`, and no `path`")
        elif self.task is not None:
            raise ValueError(f"`task` has no effect with `kind: {self.kind}`; use `benchmark`")
        elif self.path is None and self.kind != "instructions":
            raise ValueError(f"`kind: {self.kind}` needs a `path`")
        return self

    @model_validator(mode="after")
    def _name_is_that_of_a_folder(self) -> Suite:
        if PurePath(self.name).name != self.name or self.name == ".." or "\\" in self.name:
            raise ValueError(
                f"`name: {self.name}` can't be the name of a folder, where its results go; leave out / and \\"
            )
        return self

    @model_validator(mode="after")
    def _no_value_without_effect(self) -> Suite:
        for key, kinds in _EFFECT.items():
            if self.kind not in kinds:
                use = " or ".join(f"`{kind}`" for kind in kinds)
                self._refuse_without_effect((key,), f"with `kind: {self.kind}`; take it out, or use {use}")
        return self


_EFFECT: Mapping[str, tuple[str, ...]] = {
    "map": ("answers", "loss", "text"),
    "metric": ("answers",),
    "normalise": ("choice",),
    "max_new_tokens": ("answers", "instructions", "questions"),
    "guard": ("answers", "choice", "instructions", "loss", "text", "benchmark"),
}
"""The kinds of suite in which a key has an effect."""


def _suite_name(given: Mapping[str, object]) -> str:
    if task := given.get("task"):
        file = PurePath(str(task))
        return file.stem if file.suffix in (".yaml", ".yml") else str(task).replace("/", "_")
    return name_of(given) if given.get("path") else str(given.get("kind", "suite"))


class Evaluate(Section):
    """How base and tuned model are compared, on the same held-out rows."""

    items: Annotated[int, Field(ge=0)] = 200
    """Rows per level of generalisation that are answered and scored; 0 for none."""
    losses: Annotated[int, Field(ge=0)] = 1000
    """Rows per level whose response loss is measured; 0 for none."""
    max_new_tokens: Count = 256
    """Longest answer, in tokens; a longer one is cut, counted, and scored as it is."""
    metric: Metric | Mapping[Text, Metric] = "auto"
    """By task, `auto` takes `number` for responses with `#### x`, `exact_match` for short ones, or `rouge_l`. Or
    metrics by cluster or task, as `{default: auto, summary: rouge_l}`."""
    bertscore: BertScore | None = None
    """The model of the metric `bertscore`."""
    decoding: Decoding = Decoding()
    """How answers are generated; by default greedily, so that they are the same each time."""
    base_styles: Annotated[tuple[PromptStyle, ...], Field(min_length=1)] = ("chat", "plain")
    """How the base model is asked: by the chat template, by a plain prompt, or both, counting the better."""
    forgetting: Forgetting | None = None
    """Plain text on which base and tuned model are compared; by default none."""
    suites: tuple[Suite, ...] = ()
    """Further items to examine both models with: files, or benchmarks."""

    @model_validator(mode="after")
    def _bertscore_where_it_is_used(self) -> Evaluate:
        held_out = {self.metric} if isinstance(self.metric, str) else set(self.metric.values())
        used = "bertscore" in held_out | {suite.metric for suite in self.suites}
        if used and self.bertscore is None:
            raise ValueError("`metric: bertscore` needs a model: set `bertscore: {model: FOLDER}`")
        if not used:
            self._refuse_without_effect(("bertscore",), "where no `metric` is `bertscore`")
        return self

    @model_validator(mode="after")
    def _names_differ(self) -> Evaluate:
        twice = [name for name, count in Counter(suite.name for suite in self.suites).items() if count > 1]
        if twice:
            raise ValueError(f"several suites are called {', '.join(twice)}; give each a `name` of its own")
        return self
