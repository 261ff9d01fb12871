"""What is wrong with a recipe, all of it at once: where, which value, what is allowed, the nearest right spelling."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from tunesmith.recipe.document import ABSENT, Document, Fault, Key, dotted


def faults_of(model: type[BaseModel], document: Document) -> list[Fault]:
    """Everything wrong with a document's values, in the order of the file.

    What a section says about its values as a whole is only checked once it has no unknown key. So these are put
    right by their nearest spelling, or else taken out, until none is left; what is then still wrong is reported too.
    """
    faults = list(document.faults)
    while details := _details(model, document.values):
        unknown = [detail for detail in details if detail["type"] == "extra_forbidden"]
        for detail in unknown or details:
            key = tuple(part for part in detail["loc"] if part != "[key]")
            faults.append(Fault(document.place(key), key, _message(model, detail)))
        if not unknown:
            break
        for detail in unknown:
            document = _corrected(model, document, detail["loc"])
    return sorted(faults, key=lambda fault: fault.line)


def _details(model: type[BaseModel], values: Any) -> list[ErrorDetails]:
    try:
        model.model_validate(values)
    except ValidationError as error:
        return [detail for detail in error.errors() if not _follows_from_another(detail)]
    return []


def _follows_from_another(detail: ErrorDetails) -> bool:
    """Whether pydantic only says that a default, or a list's length, is unknown because of a fault inside."""
    if detail["type"] == "too_short":
        return bool(len(detail["input"]) != detail["ctx"]["actual_length"])
    return detail["type"] == "default_factory_not_called"


def _message(model: type[BaseModel], detail: ErrorDetails) -> str:
    kind, context, value = detail["type"], detail.get("ctx", {}), _shown(detail["input"])
    if kind == "extra_forbidden":
        return _unknown_key(model, detail["loc"])
    if kind == "value_error":
        return str(context["error"])
    if kind == "missing":
        return "missing, and there is no default"
    if kind == "literal_error":
        allowed = re.findall(r"'([^']*)'", context["expected"])
        subject = "unknown key" if detail["loc"][-1] == "[key]" else f"{value} is not known here"
        return f"{subject}{_nearest(str(detail['input']), allowed)} Allowed: {', '.join(allowed)}"
    if kind in ("model_type", "mapping_type", "dict_type"):
        return f"{value} is not a section; it needs `key: value` lines below it"
    if kind == "tuple_type":
        return f"{value} is not a list; write [a, b] or one `- ` line per entry"
    if kind == "string_too_short":
        return "is empty; give it a value or leave the key out"
    expected = detail["msg"].removeprefix("Input should be ")
    return f"{value} must be {expected}" if expected != detail["msg"] else f"{value}: {expected}"


def _unknown_key(model: type[BaseModel], key: Key) -> str:
    """What to say of a key its section does not have: the nearest that it has, or the section that has it."""
    name, known = str(key[-1]), list(_section(model, key[:-1]).model_fields)
    near = _nearest(name, known)
    elsewhere = [place for place in _known_keys(model) if place[-1] == name]
    if near == "." and elsewhere:
        near = f"; did you mean `{dotted(elsewhere[0])}`?"
    return f"unknown key{near} Allowed: {', '.join(known)}"


def _nearest(word: str, known: Iterable[str]) -> str:
    near = get_close_matches(word, list(known), n=1)
    return f"; did you mean `{near[0]}`?" if near else "."


def _corrected(model: type[BaseModel], document: Document, key: Key) -> Document:
    """The document with an unknown key under its nearest known name, or without it when there is none."""
    section = document.get(key[:-1])
    near = get_close_matches(str(key[-1]), list(_section(model, key[:-1]).model_fields), n=1)
    corrected = document.with_value(key, ABSENT, document.place(key))
    if not near or near[0] in section:
        return corrected
    new = (*key[:-1], near[0])
    corrected = corrected.with_value(new, section[key[-1]], document.place(key))
    for old, place in document.places.items():
        if old[: len(key)] == key:
            corrected.places[new + old[len(key) :]] = place
    return corrected


def _section(model: type[BaseModel], key: Key) -> type[BaseModel]:
    """The model of the section at `key`; positions in lists are passed over."""
    for name in key:
        if isinstance(name, str):
            model = next(_models_in(model.model_fields[name].annotation))
    return model


def _known_keys(model: type[BaseModel], above: Key = ()) -> Iterator[Key]:
    """Every key of a model and of the sections in it; entries of lists stand as their first."""
    for name, described in model.model_fields.items():
        here = (*above, name)
        yield here
        for section in _models_in(described.annotation):
            in_list = getattr(described.annotation, "__origin__", None) is tuple
            yield from _known_keys(section, (*here, 0) if in_list else here)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The section models named in a field's type, as in `tuple[Source, ...]` or `Replay | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in(part)


def _shown(value: Any) -> str:
    """A value as YAML would write it on one line, cut when long."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."
