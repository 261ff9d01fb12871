"""Files of prompt templates: what may stand in one, all faults of one reported together, and those that are shipped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from tunesmith.base.errors import RecipeError, UserError
from tunesmith.data.sources import options as listing
from tunesmith.data.sources.formats import nearest
from tunesmith.data.sources.options import Layout, Options, Reading
from tunesmith.data.sources.phrasings import Drawing, Kind, Phrasings, PromptTemplate, TemplateFile
from tunesmith.data.sources.sandbox import compile_expression, compile_text
from tunesmith.recipe.data import Source, Templates
from tunesmith.recipe.document import read_document
from tunesmith.recipe.faults import faults_of
from tunesmith.recipe.section import Section, Text

SHIPPED = Path(__file__).parents[1] / "data" / "templates"
LARGEST = 1_000_000  # bytes; more is a data file by mistake


def _is_text(value: str) -> str:
    compile_text(value)
    return value


def _is_expression(value: str) -> str:
    compile_expression(value)
    return value


def _layouts(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _words(value: Any) -> dict[str, str]:
    """Options as label -> words, from a list (each is its own label, and so is its number) or a mapping."""
    pairs = list(value.items()) if isinstance(value, Mapping) else list(enumerate(value)) if _is_list(value) else []
    if len(pairs) < 2 or not all(isinstance(words, str) and words.strip() for _, words in pairs):
        raise ValueError(
            "must be a list of two words or more, as [yes, maybe, no], or a mapping from each value of the label, as "
            '{0: "yes", 1: maybe, 2: "no"}. Options that each row has in a column go under `options_from`'
        )
    if len(pairs) > len(listing.LETTERS):
        raise ValueError(f"are {len(pairs)}, and a prompt lists {len(listing.LETTERS)} at most")
    twice = [word for word, count in Counter(words for _, words in pairs).items() if count > 1]
    if twice:
        raise ValueError(f"hold {twice[0]!r} twice; a response could not tell the two labels apart")
    if isinstance(value, Mapping):
        return {str(label): words for label, words in pairs}
    if any(words.strip().lstrip("+-").isdigit() for words in value):
        raise ValueError(
            "are numbers in a list, so a label may mean a number or its place; write a mapping from label to words"
        )
    return {words: words for words in value}


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


Prompt = Annotated[Text, AfterValidator(_is_text)]
Formula = Annotated[Text, AfterValidator(_is_expression)]
Layouts = Annotated[tuple[Layout, ...], Field(min_length=1), BeforeValidator(_layouts)]


class TemplateSection(Section):
    """One phrasing of the task."""

    name: Text
    """What the phrasing is called: held-out phrasings and reports go by it."""
    prompt: Prompt
    """What is asked, a Jinja text over the row's columns."""
    response: Prompt
    """What is answered."""
    system: Prompt | None = None
    """What the system message says."""
    reasoning: Prompt | None = None
    """What a reasoning model thinks before it answers."""
    when: Formula | None = None
    """The rows it is for, as `input`, `length > 9`, or `option == "yes"` by the words of the right option."""
    kind: Kind = "direct"
    """`inverted`: the question is generated from the answer. `worked`: the response holds the steps."""
    task: str = ""
    """The task, where it is another than the file's; of an inverted template, by default TASK_inverted."""
    cluster: str = ""
    """The task cluster, where it is another than the file's."""
    layout: Layouts | None = None
    """How it lists the options, where not as the file says."""

    @property
    def texts(self) -> dict[str, str]:
        given = {key: getattr(self, key) for key in ("prompt", "response", "system", "reasoning")}
        return {key: text for key, text in given.items() if text}

    @model_validator(mode="after")
    def _prompt_differs_by_row(self) -> TemplateSection:
        if not compile_text(self.prompt).names:
            raise ValueError(f"template {self.name} names no column in its prompt, so every row would ask the same")
        return self

    @model_validator(mode="after")
    def _reasoning_is_worked(self) -> TemplateSection:
        if self.reasoning and self.kind == "direct":
            raise ValueError(f"template {self.name} has `reasoning`, so its `kind` is worked; say so, or take it out")
        return self


class FileSection(Section):
    """A file of prompt templates: several phrasings of one task, over the rows of a table."""

    task: Text
    """What the task is called."""
    cluster: str = ""
    """The task cluster it belongs to; by default the source's name."""
    options: Annotated[Any, BeforeValidator(lambda value: value if value is None else _words(value))] = None
    """What the labels are called: a list in the order of their numbers, or a mapping from each value of the label."""
    options_from: Formula | None = None
    """Instead: where each row has its own options, as `choices`, `choices.text` or `[a, b, c]`."""
    label: Formula = "label"
    """Where the right option stands."""
    label_is: Reading = "word"
    """With `options_from`: what the label is, the option's word, its number from 0, or its letter."""
    layout: Layouts = ("bullets",)
    """How `{{options}}` lists them: `bullets`, `letters` or `words`; of several, each row draws one."""
    optional: tuple[Text, ...] = ()
    """Columns that a row, or the whole table, may lack; they are empty to the templates then."""
    templates: Annotated[tuple[TemplateSection, ...], Field(min_length=1)]
    """The phrasings."""

    @model_validator(mode="after")
    def _names_differ(self) -> FileSection:
        names = Counter(template.name for template in self.templates)
        twice = [name for name, count in names.items() if count > 1]
        if twice:
            raise ValueError(f"several templates are called {', '.join(twice)}; give each a `name` of its own")
        return self

    @model_validator(mode="after")
    def _options_fit(self) -> FileSection:
        if self.options and self.options_from:
            raise ValueError("`options` and `options_from` are both given; rows have the one or the other")
        if not self.options_from:
            self._refuse_without_effect(("label_is",), "without `options_from`: options of the file are named by label")
        if not self.has_options:
            self._refuse_without_effect(("label", "layout"), "without `options` or `options_from`")
        for template in self.templates:
            self._check_options_of(template)
        return self

    @property
    def has_options(self) -> bool:
        return bool(self.options or self.options_from)

    def _check_options_of(self, template: TemplateSection) -> None:
        named = {name for text in template.texts.values() for name in compile_text(text).names} & set(listing.NAMES)
        if not self.has_options:
            if template.layout:
                raise ValueError(f"`layout` of template {template.name} has no effect without options")
            return
        placed = {"options", "choices", "letter"} & compile_expression(template.when or "true").names
        if placed:
            raise ValueError(
                f"`when` of template {template.name} names {', '.join(sorted(placed))}, made once a template is drawn; "
                "of a row's options it may name `option`"
            )
        layouts = template.layout or self.layout
        if "letter" in named and "options" in named and layouts != ("letters",):
            raise ValueError(
                f"template {template.name} answers with {{{{letter}}}}, and its options are listed as "
                f"{' or '.join(layouts)}; give it `layout: letters`"
            )
        if template.layout and "options" not in named:
            raise ValueError(f"`layout` of template {template.name} has no effect: it does not name {{{{options}}}}")


def shipped_templates() -> dict[str, Path]:
    """The files of prompt templates that come with the package, by name."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.yaml"))}


def template_path(file: str) -> Path:
    """Where a file of prompt templates lies, by path or shipped name. Raises UserError if there is none."""
    path = Path(file).expanduser()
    if path.is_file():
        return path
    shipped = shipped_templates()
    if file not in shipped:
        raise UserError(
            f"templates.file: {file!r} is neither a file nor the name of shipped prompt templates, so nothing can be "
            f"put into words. {nearest(file, shipped)} `tunesmith templates NAME` prints one to start from."
        )
    return shipped[file]


def read_templates(path: Path) -> FileSection:
    """Read a file of prompt templates. Raises RecipeError listing all its faults, each with its line."""
    if path.stat().st_size > LARGEST:
        raise UserError(
            f"{path} has {path.stat().st_size / 1e6:,.1f} MB, too much for prompt templates. The table is the source's "
            f"`path`; `templates.file` is the YAML file that puts its rows into words."
        )
    try:
        document = read_document(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise RecipeError(f"prompt templates {path} are not UTF-8 text (byte {error.start}); save as UTF-8.") from error
    if document.values is None and not document.faults:
        document.values = {}
    faults = document.faults if document.values is None else faults_of(FileSection, document)
    if faults:
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        lines = "\n".join(f"  {fault}" for fault in faults)
        raise RecipeError(f"prompt templates {path} have {count}:\n{lines}\ndocs/phrasings.md describes every key.")
    return FileSection.model_validate(document.values)


def phrasings_of(source: Source, templates: Templates) -> Phrasings:
    """The prompt templates of a source, ready to put its rows into words.

    Raises UserError for a file that is not there, RecipeError for its faults, and UserError for a setting of the
    recipe that the file gives no effect.
    """
    path = template_path(templates.file)
    given = read_templates(path)
    kinds = {template.kind for template in given.templates}
    shares: dict[Kind, float] = {}
    for kind, share in (("inverted", templates.inverted), ("worked", templates.worked)):
        if share is None:
            continue
        if kind not in kinds:
            raise UserError(
                f"source {source.name}: templates.{kind}: {share} asks for {kind} templates, and {path.name} has none. "
                f"Mark some with `kind: {kind}`, or leave the share out."
            )
        shares[kind] = share
    if shares and kinds <= set(shares) and sum(shares.values()) < 1 - 1e-9:
        raise UserError(
            f"source {source.name}: templates.{' and '.join(shares)} come to {sum(shares.values()):g}, and "
            f"{path.name} has no other kind for the rest. Let them add up to 1, or leave one out."
        )
    if templates.shuffle_options and not given.has_options:
        raise UserError(
            f"source {source.name}: templates.shuffle_options has no effect: {path.name} has neither `options` nor "
            f"`options_from`. Leave it out."
        )
    per_row = None if templates.per_row == "all" else int(templates.per_row)
    columns = dict(templates.columns or {})
    drawing = Drawing(per_row, shares, templates.shuffle_options, columns, source.seed)
    phrasings = Phrasings(_compiled(given, path.name), drawing)
    unread = set(columns) - phrasings.reads
    if unread:
        raise UserError(
            f"source {source.name}: templates.columns names {', '.join(sorted(unread))}, which no template of "
            f"{path.name} reads. They read {', '.join(sorted(phrasings.reads))}."
        )
    return phrasings


def _compiled(given: FileSection, name: str) -> TemplateFile:
    options = None
    if given.has_options:
        own = compile_expression(given.options_from) if given.options_from else None
        options = Options(compile_expression(given.label), given.options, own, given.label_is)
    templates = tuple(
        PromptTemplate(
            name=one.name,
            prompt=compile_text(one.prompt),
            response=compile_text(one.response),
            system=compile_text(one.system) if one.system else None,
            reasoning=compile_text(one.reasoning) if one.reasoning else None,
            when=compile_expression(one.when) if one.when else None,
            kind=one.kind,
            task=one.task,
            cluster=one.cluster,
            layouts=one.layout or given.layout,
        )
        for one in given.templates
    )
    return TemplateFile(name, given.task, templates, given.cluster, options, frozenset(given.optional))
