"""Prompt templates in FLAN's sense: several natural phrasings of one task, drawn by seed, over the rows of a table.

FLAN (arXiv:2109.01652, section 2.1) writes ten templates for each data set, some of which turn the task around, and
draws one at random for each example. Here the draw is by a hash of seed, row and template: rows and templates that are
added leave what the others drew as it was, but for rows that draw what is new.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from operator import attrgetter
from typing import Any, Literal

from jinja2 import TemplateError

from tunesmith.base.conversation import Message
from tunesmith.base.deadline import time_limit
from tunesmith.base.errors import DataError
from tunesmith.base.random import ranked, seed_of
from tunesmith.data.sources import options as listing
from tunesmith.data.sources.formats import Draft, is_missing, nearest
from tunesmith.data.sources.messages import Rejected, settle
from tunesmith.data.sources.options import Layout, Options
from tunesmith.data.sources.sandbox import Expression, Text

Kind = Literal["direct", "inverted", "worked"]
SECONDS_TO_RENDER = 5.0  # far beyond any prompt; one that takes longer would take longer for every row
_NAME = attrgetter("name")
_FAULTS = (TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError)


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """One phrasing of a task.

    system, prompt, reasoning, response: what each message says; reasoning is what a reasoning model thinks first.
    when: the rows it is for. kind: "direct", "inverted" (the question from the answer), "worked" (with the steps).
    task, cluster: labels of its rows; "" leaves them to the source. layouts: how it may list options.
    """

    name: str
    prompt: Text
    response: Text
    system: Text | None = None
    reasoning: Text | None = None
    when: Expression | None = None
    kind: Kind = "direct"
    task: str = ""
    cluster: str = ""
    layouts: tuple[Layout, ...] = ("bullets",)
    names: frozenset[str] = field(init=False)  # all that its texts name

    def __post_init__(self) -> None:
        texts = (self.prompt, self.response, self.system, self.reasoning)
        object.__setattr__(self, "names", frozenset().union(*(text.names for text in texts if text)))

    @property
    def takes_options(self) -> bool:
        return not self.names.isdisjoint(listing.NAMES)


@dataclass(frozen=True, slots=True)
class TemplateFile:
    """The prompt templates of one task, as the file called `name` has them.

    task, cluster: labels of the rows, where neither recipe nor template has others.
    optional: columns that a row may lack, empty to the templates then.
    """

    name: str
    task: str
    templates: tuple[PromptTemplate, ...]
    cluster: str = ""
    options: Options | None = None
    optional: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Drawing:
    """How many phrasings of a row, and which.

    per_row: so many, or all that fit (None). shares: the part of draws that go to templates of a kind, where a row
    fits one; the other kinds share the rest. shuffle: options in another order for each row.
    columns: what templates call a column -> what the table calls it.
    """

    per_row: int | None = 1
    shares: Mapping[Kind, float] = field(default_factory=dict)
    shuffle: bool = False
    columns: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0


class Phrasings:
    """Turns rows of a table into rows of instruction data.

    reads: the columns that templates name. used: the same as the table calls them.
    """

    def __init__(self, file: TemplateFile, drawing: Drawing) -> None:
        self.file = file
        self.drawing = drawing
        options = file.options
        self._made = frozenset(listing.NAMES if options else ())
        self._needed = {template.name: self._columns_of(template) for template in file.templates}
        self._asked = frozenset().union(*self._needed.values())
        asking = [template for template in file.templates if template.kind != "inverted"] or file.templates
        prompts = frozenset().union(*(template.prompt.names for template in asking)) - set(listing.NAMES)
        self._question = sorted(prompts | (options.own.names if options and options.own else frozenset()))
        conditions = (template.when.names for template in file.templates if template.when)
        self.reads = frozenset().union(self._asked, file.optional, *conditions) - self._made
        self.used = self.reads | {drawing.columns[name] for name in self.reads if name in drawing.columns}

    @property
    def title(self) -> str:
        count = len(self.file.templates)
        return f"a table put into words by {count} prompt template{'s' * (count != 1)} of {self.file.name}"

    def check_columns(self, there: Collection[str], table: str) -> None:
        """Raise DataError if a template, or `columns`, names a column that the table lacks."""
        for name, column in self.drawing.columns.items():
            if column not in there:
                raise DataError(
                    f"templates.columns takes {name} from column {column!r}, and {table} lacks it. "
                    f"{nearest(column, there)}"
                )
        there = {*there, *self.drawing.columns, *self.file.optional}
        for template in self.file.templates:
            wanted = self._needed[template.name] | (template.when.names if template.when else frozenset())
            for column in sorted(wanted - there - self._made):
                raise DataError(
                    f"template {template.name} of {self.file.name} names column {column!r}, and {table} lacks it, so "
                    f"nothing was read. {nearest(column, there)} If another column holds it, say so: "
                    f"`templates: {{columns: {{{column}: NAME}}}}`; if rows may lack it, list it under `optional`."
                )

    def render(self, row: Mapping[str, Any], id: str) -> list[Draft | Rejected]:
        """The rows that the drawn templates make of a row of the table. Raises Rejected when none fits.

        Raises DataError for a template that takes longer than SECONDS_TO_RENDER.
        """
        columns = self.drawing.columns
        values = {**row, **{name: row.get(column) for name, column in columns.items()}}
        values.update((name, "") for name in self.file.optional if is_missing(values.get(name)))
        drafts: list[Draft | Rejected] = []
        written: set[tuple[Message, ...]] = set()
        template: PromptTemplate | None = None
        try:
            with time_limit(SECONDS_TO_RENDER):
                for template in self._drawn(self._fitting(values), id):
                    try:
                        draft = self._draft(template, values, id)
                        if draft.messages in written:
                            raise Rejected("same_words", "another template wrote the same of this row")
                        written.add(draft.messages)
                        drafts.append(draft)
                    except Rejected as fault:
                        drafts.append(Rejected(fault.reason, f"template {template.name}: {fault.detail}"))
                    except _FAULTS as fault:
                        drafts.append(Rejected("template_failed", f"template {template.name}: {fault}"))
        except TimeoutError as error:
            name = template.name if template else "with `when`"
            raise DataError(
                f"template {name} of {self.file.name} did not put row {id} into words within "
                f"{SECONDS_TO_RENDER:.0f} s, so reading was given up. Its loops run over too much: make them fewer."
            ) from error
        return drafts

    def item(self, row: Mapping[str, Any]) -> str:
        """What a row of the table is made from: its question, whatever template asks it. Rows of one question are one
        item, though each draws a template of its own."""
        columns = self.drawing.columns
        values = (row.get(columns.get(name, name)) for name in self._question)
        texts = (
            value if isinstance(value, str) else json.dumps(None if is_missing(value) else value, default=str)
            for value in values
        )
        plain = "\x1f".join(" ".join(text.casefold().split()) for text in texts)
        return blake2b(plain.encode(), digest_size=12).hexdigest()

    def _columns_of(self, template: PromptTemplate) -> frozenset[str]:
        """The columns without which a template can't be rendered."""
        options = self.file.options
        names = template.names
        if options and not self._made.isdisjoint(names | (template.when.names if template.when else frozenset())):
            names = (names - self._made) | options.names
        return names - self.file.optional

    def _fitting(self, values: dict[str, Any]) -> list[PromptTemplate]:
        """The templates whose columns are filled and whose `when` holds. Raises Rejected if there is none."""
        empty = frozenset(name for name in self._asked if is_missing(values.get(name)))
        filled = [template for template in self.file.templates if not empty & self._needed[template.name]]
        if not filled:
            names = ", ".join(sorted(empty))
            raise Rejected("missing_column", f"nothing in column {names}, and every template needs it, or one of these")
        try:
            options = self.file.options
            if options and any(template.when and "option" in template.when.names for template in filled):
                words, right = options.of(values)
                values = {**values, "option": words[right]}
            found = [template for template in filled if _is_for(template, values)]
        except _FAULTS as fault:
            raise Rejected("template_failed", f"`when`: {fault}") from fault
        if not found:
            detail = f"nothing in column {', '.join(sorted(empty))}, and " if empty else ""
            raise Rejected("no_template_fits", f"{detail}no `when` is true of the row")
        return found

    def _drawn(self, fitting: Sequence[PromptTemplate], id: str) -> list[PromptTemplate]:
        """The templates drawn for a row, in the order of the draw."""
        seed, count = self.drawing.seed, self.drawing.per_row
        if count is None:
            return list(fitting)
        by_hash = ranked(fitting, _NAME, seed, "phrasing", id)
        shares = self.drawing.shares
        if not shares:
            return by_hash[:count]
        drawn: list[PromptTemplate] = []
        for number in range(min(count, len(by_hash))):
            kind = self._kind(seed_of(seed, "kind", id, number) / 2**64)
            left = [template for template in by_hash if template not in drawn]
            meant = [one for one in left if (one.kind == kind if kind else one.kind not in shares)]
            drawn.append((meant or left)[0])
        return drawn

    def _kind(self, chance: float) -> Kind | None:
        """The kind that a chance from 0 to 1 falls to; None is any without a share of its own."""
        for kind, share in self.drawing.shares.items():
            if chance < share:
                return kind
            chance -= share
        return None

    def _draft(self, template: PromptTemplate, values: dict[str, Any], id: str) -> Draft:
        """Raises Rejected, and what a template raises that does not suit a row."""
        values, changes = self._with_options(template, values, id)
        messages = [Message("system", template.system(values))] if template.system else []
        messages.append(Message("user", template.prompt(values).strip()))
        thoughts = template.reasoning(values).strip() if template.reasoning else None
        messages.append(Message("assistant", template.response(values).strip("\r\n"), thoughts or None))
        settled, mended = settle(messages)
        labels = {"phrasing": template.name, "task": template.task, "cluster": template.cluster}
        if template.kind == "inverted":  # another task: what is asked was the answer
            labels["variant"] = "inverted"
        return Draft(settled, changes=(*changes, *mended), labels=labels)

    def _with_options(
        self, template: PromptTemplate, values: dict[str, Any], id: str
    ) -> tuple[dict[str, Any], tuple[str, ...]]:
        """The row's values with its options, and what was done to their order."""
        options = self.file.options
        if not options or not template.takes_options:
            return values, ()
        words, right = options.of(values)
        changes: tuple[str, ...] = ()
        seed = self.drawing.seed
        if self.drawing.shuffle and not listing.have_one_order(words, self._texts(template, values)):
            before = words
            words, right = listing.shuffled(words, right, seed, id, template.name)
            changes = ("options in another order",) if words != before else ()
        layouts = template.layouts
        layout = layouts[seed_of(seed, "layout", id, template.name) % len(layouts)] if len(layouts) > 1 else layouts[0]
        made = {
            "options": listing.written(words, layout),
            "choices": list(words),
            "option": words[right],
            "letter": listing.LETTERS[right],
        }
        return {**values, **made}, changes

    def _texts(self, template: PromptTemplate, values: dict[str, Any]) -> Iterable[str]:
        """The row's texts beside the options."""
        return (value for name in template.names if isinstance(value := values.get(name), str))


def _is_for(template: PromptTemplate, values: dict[str, Any]) -> bool:
    if not template.when:
        return True
    # A row may lack a column that only some have: empty then, so that `when: input` is no error.
    lacking = {name: "" for name in template.when.names if is_missing(values.get(name))}
    return bool(template.when({**values, **lacking} if lacking else values))
