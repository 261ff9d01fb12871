"""A recipe's YAML as plain values, with the place every key came from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import yaml

Key = tuple[str | int, ...]
ABSENT: Final = object()


@dataclass(frozen=True)
class Fault:
    """One thing wrong with a recipe: where ("line 3", or the --set option), at which key, and what to do."""

    where: str
    key: Key
    message: str

    @property
    def line(self) -> float:
        """The line to sort by; options come after the file."""
        number = re.match(r"line (\d+)", self.where)
        return int(number[1]) if number else float("inf")

    def __str__(self) -> str:
        return ": ".join(part for part in (self.where, dotted(self.key), self.message) if part)


@dataclass
class Document:
    """Mappings, tuples and scalars as they stand in a recipe; nothing is checked against its models yet."""

    values: Any = None
    places: dict[Key, str] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    def place(self, key: Key) -> str:
        """Where a key, or else the nearest section around it, stands."""
        while key not in self.places and key:
            key = key[:-1]
        return self.places.get(key, "line 1")

    def get(self, key: Key) -> Any:
        """The value at a key; None when there is none."""
        value = self.values
        for part in key:
            if isinstance(value, Mapping):
                value = value.get(part)
            elif isinstance(value, tuple) and isinstance(part, int) and part < len(value):
                value = value[part]
            else:
                return None
        return value

    def with_value(self, key: Key, value: Any, place: str) -> Document:
        """A copy with another value at `key` (ABSENT takes it out). Missing sections are made; ValueError when a list
        has no such entry, or when there is a plain value where a section would have to be."""
        places = {old: old_place for old, old_place in self.places.items() if old[: len(key)] != key}
        if value is not ABSENT:
            places[key] = place
        return replace(self, values=_with(self.values, key, value), places=places)


def read_document(text: str) -> Document:
    """Parse a recipe. Faults of its form (syntax, keys given twice) are in the document's `faults`."""
    document = Document()
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is not None:
            document.values = _plain(loader, node, (), document)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "the file"
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
        document.faults.append(Fault(where, (), f"not readable as YAML: {problem}"))
    finally:
        loader.dispose()
    return document


def parse_value(text: str) -> Any:
    """One value as a recipe would hold it: `0.1`, `[a, b]`, `{path: x}`. Raises ValueError when it isn't YAML."""
    document = read_document(text)
    if document.faults:
        raise ValueError(document.faults[0].message)
    return document.values


def to_yaml(values: Any) -> str:
    """YAML that `read_document` reads back to the same values (lists as tuples)."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def dotted(key: Key) -> str:
    """`data.sources.0.path`, as `--set` takes it."""
    return ".".join(map(str, key))


class _Loader(yaml.SafeLoader):
    """The scalars of YAML 1.2 (2e-4 is a number and `no` a word), and neither aliases nor tags."""

    yaml_implicit_resolvers = {}  # noqa: RUF012

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "tag", None):
            raise yaml.MarkedYAMLError(
                problem="recipes have neither aliases (*name) nor tags (!name): write the value out, or quote it",
                problem_mark=event.start_mark,
            )
        return super().compose_node(parent, index)


class _Dumper(yaml.SafeDumper):
    """Quotes what either version of YAML would take for something else than text."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_text(self, text: str) -> yaml.Node:
        # Line ends other than "\n" come back as spaces unless they are escaped, which only double quotes do.
        escaped = set(text) & {"\r", "\x85", "\u2028", "\u2029"}
        return self.represent_scalar("tag:yaml.org,2002:str", text, style='"' if escaped else None)


_Dumper.add_representer(str, _Dumper.represent_text)


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(0|[1-9][0-9_]*)", list("-+0123456789")),
    ("float", r"[-+]?([0-9][0-9_]*\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?", list("-+.0123456789")),
):
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), _first)


def _plain(loader: _Loader, node: yaml.Node, key: Key, document: Document) -> Any:
    """A node's value, with lists as tuples since recipes are frozen; notes places, and keys given twice."""
    document.places[key] = f"line {node.start_mark.line + 1}"
    if isinstance(node, yaml.SequenceNode):
        return tuple(_plain(loader, item, (*key, index), document) for index, item in enumerate(node.value))
    if not isinstance(node, yaml.MappingNode):
        return loader.construct_object(node)
    values: dict[str, Any] = {}
    for name_node, value_node in node.value:
        name, line = str(name_node.value), f"line {name_node.start_mark.line + 1}"
        inner = (*key, name)
        if name in values:
            document.faults.append(Fault(line, inner, f"given twice, first on {document.places[inner]}; keep one"))
        values[name] = _plain(loader, value_node, inner, document)
        document.places[inner] = line  # where its name stands, which may be above the value
    return values


def _with(values: Any, key: Key, value: Any) -> Any:
    if not key:
        return value
    head, rest = key[0], key[1:]
    if isinstance(values, tuple):
        if not isinstance(head, int) or not 0 <= head <= len(values):
            raise ValueError(f"`{head}` is no entry of a list of {len(values)}; entries are counted from 0")
        old = values[head] if head < len(values) else None
        return (*values[:head], _with(old, rest, value), *values[head + 1 :])
    if values is not None and not isinstance(values, Mapping):
        raise ValueError(f"there is a plain value, {values!r}, where `{head}` needs a section")
    changed = {**(values or {}), str(head): _with((values or {}).get(str(head)), rest, value)}
    return {name: inner for name, inner in changed.items() if inner is not ABSENT}
