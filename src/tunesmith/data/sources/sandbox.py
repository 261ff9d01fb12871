"""Jinja for prompt templates: texts and expressions over a row's columns, checked before any row is rendered.

A prompt template is data from somebody else, and Jinja's own sandbox bounds neither time nor memory. So only what a
prompt needs is let through: columns, conditions, loops over what a column holds, and the filters and methods below.
There is nothing to build large values with (no `*`, `range`, `set` or macro) and no way to Python's insides. What is
left, loops within loops over long columns, is bounded by a length and a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateError, filters, nodes
from jinja2 import tests as jinja_tests
from jinja2.meta import find_undeclared_variables
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from tunesmith.data.sources.formats import as_text, nearest
from tunesmith.data.sources.messages import Rejected

LONGEST = 1_000_000  # characters of a rendered text
METHODS = (
    "capitalize", "count", "endswith", "find", "get", "index", "lower", "lstrip", "partition", "removeprefix",
    "removesuffix", "rpartition", "rsplit", "rstrip", "split", "splitlines", "startswith", "strip", "title", "upper",
)  # fmt: skip
_RESULT = "result"
_TESTS = ("boolean", "defined", "even", "false", "in", "mapping", "none", "number", "odd", "sequence", "string", "true")
_NODES = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.If, nodes.For, nodes.Name, nodes.Const, nodes.List,
    nodes.Tuple, nodes.Dict, nodes.Pair, nodes.Getattr, nodes.Getitem, nodes.Slice, nodes.Filter, nodes.Test,
    nodes.Call, nodes.Keyword, nodes.CondExpr, nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not,
    nodes.Neg, nodes.Pos, nodes.Add, nodes.Sub, nodes.Concat,
)  # fmt: skip
_WORDS = {
    nodes.Mul: "`*`", nodes.Pow: "`**`", nodes.Div: "`/`", nodes.FloorDiv: "`//`", nodes.Mod: "`%`",
    nodes.Assign: "`set`", nodes.AssignBlock: "`set`", nodes.Macro: "`macro`", nodes.FilterBlock: "`filter`",
    nodes.CallBlock: "`call`", nodes.With: "`with`",
}  # fmt: skip


def without(text: str, start: str, end: str) -> str:
    """The text without each stretch from `start` to the next `end`, both included: `without('<<', '>>')`."""
    kept, rest = [], str(text)
    while start and end and (opening := rest.find(start)) >= 0:
        closing = rest.find(end, opening + len(start))
        if closing < 0:
            break
        kept.append(rest[:opening])
        rest = rest[closing + len(end) :]
    return "".join([*kept, rest])


def _replace(text: str, old: str, new: str) -> str:
    text, old, new = str(text), str(old), str(new)
    if not old:
        raise ValueError("replace needs something to look for")
    _bound(len(text) + text.count(old) * len(new))
    return text.replace(old, new)


def _join(values: Any, between: str = "") -> str:
    texts = [_shown(value) for value in values]
    _bound(sum(map(len, texts)) + len(texts) * len(between))
    return between.join(texts)


def _bound(characters: int) -> None:
    if characters > LONGEST:
        raise Rejected("too_long", f"a template writes more than {LONGEST:,} characters")


_FILTERS: dict[str, Callable[..., Any]] = {
    **{name: filters.FILTERS[name] for name in ("abs", "capitalize", "default", "first", "float", "int", "last")},
    **{name: filters.FILTERS[name] for name in ("length", "lower", "reverse", "round", "sort", "title", "trim")},
    **{name: filters.FILTERS[name] for name in ("unique", "upper", "wordcount")},
    "join": _join,
    "replace": _replace,
    "without": without,
}


def _shown(value: Any) -> str:
    """What a template writes of a value: text and numbers. A list or nothing would go out as Python writes them."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return as_text(value)
    if isinstance(value, StrictUndefined):
        str(value)  # raises, with the name of what is not there
    kind = "nothing (null)" if value is None else type(value).__name__
    raise Rejected("not_text", f"a template writes a value that is {kind}; take a part of it, or join it")


_environment = ImmutableSandboxedEnvironment(
    undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_shown, autoescape=False
)
_environment.globals.clear()
_environment.filters = dict(_FILTERS)
# What comparisons are written as belongs to the language.
_environment.tests = {name: jinja_tests.TESTS[name] for name in _TESTS}


@dataclass(frozen=True, slots=True)
class Text:
    """A text with columns in it. names: the columns it names."""

    names: frozenset[str]
    _template: Template

    def __call__(self, values: dict[str, Any]) -> str:
        """Raises Rejected for what is no text or too long, and Jinja's and Python's own errors for the rest."""
        pieces = []
        length = 0
        for piece in self._template.root_render_func(_context(values)):
            length += len(piece)
            if length > LONGEST:
                _bound(length)
            pieces.append(piece)
        return "".join(pieces)


@dataclass(frozen=True, slots=True)
class Expression:
    """A value computed from columns, as `choices.text` or `label == 1`. names: the columns it names."""

    names: frozenset[str]
    _template: Template

    def __call__(self, values: dict[str, Any]) -> Any:
        """Raises what `Text` raises."""
        context = _context(values)
        for _ in self._template.root_render_func(context):
            pass
        value = context.vars[_RESULT]
        if isinstance(value, StrictUndefined):
            str(value)  # raises
        return value


def compile_text(source: str) -> Text:
    """Compile a text. Raises ValueError, saying what is wrong and what may be used."""
    with _readable(source):
        tree = _environment.parse(source)
        return Text(_checked(tree), _environment.from_string(tree))


def compile_expression(source: str) -> Expression:
    """Compile an expression. Raises ValueError, saying what is wrong and what may be used."""
    with _readable(source):
        parser = Parser(_environment, source, state="variable")
        value = parser.parse_expression()
        if not parser.stream.eos:
            raise ValueError(f"is no expression: it goes on behind a column or comparison, as `label == 1`: {source!r}")
        names = _checked(nodes.Template([nodes.Output([value])], lineno=1))
        tree = nodes.Template([nodes.Assign(nodes.Name(_RESULT, "store"), value, lineno=1)], lineno=1)
        tree.set_environment(_environment)
        return Expression(names, _environment.from_string(tree))


@contextmanager
def _readable(source: str) -> Iterator[None]:
    """Faults of a text's form as ValueError."""
    try:
        yield
    except TemplateError as error:
        line = getattr(error, "lineno", 1) or 1
        where = f" (its line {line})" if source.count("\n") else ""
        raise ValueError(f"is no template that can be read{where}: {error.message}") from error
    except (RecursionError, MemoryError, OverflowError, SyntaxError) as error:  # Python's own compiler has its limits
        raise ValueError("is nested too deeply to be a prompt template") from error


def _checked(tree: nodes.Template) -> frozenset[str]:
    """The columns a tree names. Raises ValueError for what no prompt needs."""
    tree.set_environment(_environment)
    for node in _nodes(tree):
        _check(node)
    return frozenset(find_undeclared_variables(tree))


def _nodes(tree: nodes.Node) -> Iterator[nodes.Node]:
    yield tree
    for child in tree.iter_child_nodes():
        yield from _nodes(child)


def _check(node: nodes.Node) -> None:
    """Refuse what no prompt needs."""
    if not isinstance(node, _NODES):
        word = _WORDS.get(type(node), f"`{type(node).__name__.lower()}`")
        raise ValueError(
            f"{word} is not allowed in prompt templates: they hold columns, if, for over a column, + - and ~, "
            f"comparisons, and filters"
        )
    name = getattr(node, "attr", None) if isinstance(node, nodes.Getattr) else None
    if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const):
        name = node.arg.value
    if isinstance(node, nodes.Name):
        name = node.name
    if isinstance(name, str) and name.startswith("__"):
        raise ValueError(f"{name!r} is not allowed in prompt templates: it leads out of the row's columns")
    if isinstance(node, nodes.Call) and not (isinstance(node.node, nodes.Getattr) and node.node.attr in METHODS):
        called = getattr(node.node, "name", None) or getattr(node.node, "attr", None) or "this"
        raise ValueError(f"{called}() is not allowed in prompt templates. Methods that are: {', '.join(METHODS)}")
    if isinstance(node, nodes.Filter | nodes.Test):
        known, what = (_FILTERS, "filter") if isinstance(node, nodes.Filter) else (_TESTS, "test")
        if node.name not in known:
            raise ValueError(f"there is no {what} {node.name!r} in prompt templates. {nearest(node.name, known)}")


def _context(values: dict[str, Any]) -> Context:
    # `Template.new_context` would copy the globals for each row, and there are none.
    return Context(_environment, values, None, {})
