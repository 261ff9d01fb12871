"""Filtering: which rows are not worth training on, each rule for itself, each with its reason.

A rule either drops a row or flags it. The rules look at rows alone; what needs others (duplicates, leaks from
evaluation) comes later.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Literal, cast

from tunesmith.base.conversation import Conversation, Message
from tunesmith.base.errors import UserError
from tunesmith.data.curation.fences import has_open_fence, looks_like_code, without_code
from tunesmith.data.curation.language import check_languages, language_of
from tunesmith.data.curation.personal import KINDS, Found, Kind, find_personal, redacted
from tunesmith.data.curation.phrases import is_refusal
from tunesmith.data.curation.relevance import relevance
from tunesmith.data.curation.repetition import repetition
from tunesmith.data.curation.stage import Change, Outcome
from tunesmith.data.sources.formats import nearest

Action = Literal["off", "flag", "drop"]
PersonalAction = Literal["off", "flag", "redact", "drop"]

_DENSE = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")  # a letter is about a word, without spaces between
_NO_INPUT = re.compile(r"\s*(?:[<\[(]\s*no\s?(?:input|context)\s*[>\])]|no input|n/a|none|<empty>)\.?\s*\Z", re.I)
_UNFILLED = re.compile(
    r"""\s*(?:
        \[\s*(?:please\ )?(?:insert|enter|add|paste|put|your|type|provide|fill\ in)\b[^\]\n]{0,80}\]
      | [<{]\s*(?:please\ )?(?:insert|enter|paste|your|fill\ in)\b[^>}\n]{0,80}[>}]
      | (?-i:TODO|TBD)\b(?::\ [^\n]{0,40})? | \?{3,} | \[(?:input|output|placeholder|text|answer)\]
    )[.:]?\s*\Z""",
    re.I | re.VERBOSE,
)
_NO_OUTPUT = re.compile(
    r"\s*(?:<\s*no\s?(?:output|input|response)\s*>|<\s*(?:empty|unk)\s*>|\[no\s?(?:output|response)\]|nan)\s*\Z", re.I
)
_LONGEST_PLACEHOLDER = 120  # characters
_WORD = re.compile(r"\w+")
COPY_WORDS = 10  # from here on, a response can be a copy; below, "repeat after me" is likelier
COPY_SHARE = 0.9  # of the pairs of neighbouring words in common


@dataclass(frozen=True, slots=True)
class Filter:
    """The stage that drops or flags rows.

    min_/max_ instruction_words, response_words: words of all the user's, and all the assistant's messages of a row.
    repetition: a response repeats itself; `repetition_leniency` multiplies Gopher's thresholds.
    refusals: a response begins by refusing. placeholders: the input or the response is an unfilled blank; an input
    that says there is none ("<noinput>") is taken out of the prompt, and the row stays. copies: a response says the
    instruction again. open_fences: a code block is not closed, so the response was cut. languages: ISO 639 codes of
    which a response has to be in one, where that can be told with at least `language_sureness`; none allows all.
    min_relevance: least share of words in common, see `relevance`; 0 is off.
    personal, personal_kinds: what is done about personal data, and which.
    Raises UserError for a language or a kind that does not exist, and for a minimum above its maximum.
    """

    min_instruction_words: int = 1
    max_instruction_words: int | None = None
    min_response_words: int = 1
    max_response_words: int | None = None
    repetition: Action = "drop"
    repetition_leniency: float = 2.5
    refusals: Action = "flag"
    placeholders: Action = "drop"
    copies: Action = "drop"
    open_fences: Action = "drop"
    languages: tuple[str, ...] = ()
    language_sureness: float = 0.8
    min_relevance: float = 0.0
    personal: PersonalAction = "flag"
    personal_kinds: tuple[Kind, ...] = field(default=tuple(kind for kind in KINDS if kind != "ip"))

    def __post_init__(self) -> None:
        if self.languages:
            check_languages(self.languages)
        for least, most, what in (
            (self.min_instruction_words, self.max_instruction_words, "instruction"),
            (self.min_response_words, self.max_response_words, "response"),
        ):
            if most is not None and least > most:
                raise UserError(
                    f"no {what} has at least {least} and at most {most} words, so every row would be "
                    f"dropped. Lower min_{what}_words, or raise max_{what}_words."
                )
        for kind in self.personal_kinds:
            if kind not in KINDS:
                raise UserError(
                    f"{kind!r} is no kind of personal data, so nothing would be found. {nearest(kind, KINDS)}"
                )

    def __call__(self, row: Conversation) -> Outcome:
        row, changes = _without_empty_inputs(row) if self.placeholders != "off" else (row, ())
        flags: list[str] = []
        for action, reason, detail in self._faults(row):
            if action == "drop":
                return Outcome.dropped(reason, detail)
            if reason not in flags:
                flags.append(reason)
        if self.personal == "redact":
            row, redactions = _redacted(row, self.personal_kinds)
            changes += redactions
        return Outcome(row, changes=changes, flags=tuple(flags))

    def _faults(self, row: Conversation) -> Iterator[tuple[str, str, str]]:
        """What the rules find: what is to be done about it, the reason and the particulars. Cheap ones come first."""
        yield from self._lengths(row)
        asked = ""
        for number, message in enumerate(row.messages, 1):
            if message.role == "user":
                asked = message.content
                if self.placeholders != "off" and (blank := _unfilled_input(asked)):
                    yield self.placeholders, "placeholder", f"message {number} has the input {blank!r}"
            if message.role in ("assistant", "text") and message.content:
                for action, reason, detail in self._faults_of_response(message.content, asked):
                    yield action, reason, f"message {number}: {detail}"
        if self.personal in ("flag", "drop"):
            for kind in _personal_kinds_in(row, self.personal_kinds):
                yield self.personal, f"personal_{kind}", f"the row holds personal data: {kind}"

    def _lengths(self, row: Conversation) -> Iterator[tuple[str, str, str]]:
        # A response may be nothing but tool calls, and plain text has no instruction.
        if not row.is_text:
            yield from _length(
                [m.content for m in row.messages if m.role == "user"],
                "instruction",
                self.min_instruction_words,
                self.max_instruction_words,
            )
        calls = any(message.tool_calls for message in row.messages)
        yield from _length(
            [m.content for m in row.messages if m.role in ("assistant", "text")],
            "response",
            0 if calls else self.min_response_words,
            self.max_response_words,
        )

    def _faults_of_response(self, response: str, asked: str) -> Iterator[tuple[str, str, str]]:
        if self.placeholders != "off" and len(response) <= _LONGEST_PLACEHOLDER and _is_blank_response(response):
            yield self.placeholders, "placeholder", f"the response is {response.strip()!r}"
        if self.refusals != "off" and is_refusal(response):
            yield self.refusals, "refusal", response.strip()[:100]
        if self.open_fences != "off" and has_open_fence(response):
            yield self.open_fences, "open_fence", f"a code block is not closed: …{response[-40:]}"
        if self.copies != "off" and is_copy(response, asked):
            yield self.copies, "copy", "the response says the instruction again"
        if (
            self.repetition != "off"
            and len(response) > 100
            and (detail := _repetition(response, self.repetition_leniency))
        ):
            yield self.repetition, "repetition", detail
        if self.languages:
            code, sureness = language_of(response)
            if code and code not in self.languages and sureness >= self.language_sureness:
                yield "drop", "language", f"{code} ({sureness:.2f})"
        if self.min_relevance > 0:
            score = relevance(asked, response) if asked else None
            if score is not None and score < self.min_relevance:
                yield "drop", "low_relevance", f"{score:.2f} below {self.min_relevance:g}"


def count_words(text: str) -> int:
    """Words between white space; each letter of Chinese, Japanese and Korean is one too."""
    return len((text if text.isascii() else _DENSE.sub(" x ", text)).split())


def is_copy(response: str, asked: str) -> bool:
    """Whether a response of ten words or more is the whole instruction again, but for case, punctuation, a word or two.

    An input handed back behind an instruction ("Correct the text ...") is none: that may well be the answer.
    """
    if not 0.8 * len(asked) <= len(response) <= 1.25 * len(asked):
        return False
    wanted, given = (_WORD.findall(text.casefold()) for text in (asked, response))
    if len(given) < COPY_WORDS:
        return False
    if wanted == given:
        return True
    # A word put in, left out or changed costs two pairs of neighbours.
    pairs = [Counter(pairwise(words)) for words in (wanted, given)]
    return (pairs[0] & pairs[1]).total() >= COPY_SHARE * max(pairs[0].total(), pairs[1].total())


def _length(texts: list[str], what: str, least: int, most: int | None) -> Iterator[tuple[str, str, str]]:
    if least <= 1 and most is None:
        if least == 1 and not any(text.strip() for text in texts):
            yield "drop", f"{what}_too_short", "no word at all"
        return
    words = sum(map(count_words, texts))
    if words < least:
        yield "drop", f"{what}_too_short", f"{words} words, at least {least} are asked"
    elif most is not None and words > most:
        yield "drop", f"{what}_too_long", f"{words} words, at most {most} are allowed"


def _repetition(response: str, leniency: float) -> str:
    prose = without_code(response)
    return "" if looks_like_code(prose) else repetition(prose, leniency)


def _input(asked: str) -> str:
    """What stands behind the last blank line of a prompt, where an Alpaca row has its input; "" if that is long."""
    at = asked.rfind("\n\n", max(0, len(asked) - _LONGEST_PLACEHOLDER))
    return asked[at + 2 :] if at > 0 else ""


def _unfilled_input(asked: str) -> str:
    last = _input(asked) if "\n\n" in asked else asked
    return last.strip() if len(last) <= _LONGEST_PLACEHOLDER and _UNFILLED.match(last) else ""


def _is_blank_response(response: str) -> bool:
    return _NO_OUTPUT.match(response) is not None or _UNFILLED.match(response) is not None


def _without_empty_inputs(row: Conversation) -> tuple[Conversation, tuple[Change, ...]]:
    """The row without inputs that say there is none, which a model would learn to be shown."""
    messages, changes = list(row.messages), []
    for place, message in enumerate(messages):
        if message.role == "user" and (last := _input(message.content)) and _NO_INPUT.match(last):
            content = message.content[: -len(last)].rstrip()
            changes.append(Change("empty input removed", message.content[-60:], content[-60:]))
            messages[place] = replace(message, content=content)
    return (replace(row, messages=tuple(messages)), tuple(changes)) if changes else (row, ())


def _personal_kinds_in(row: Conversation, kinds: tuple[Kind, ...]) -> list[Kind]:
    found = {one.kind for message in row.messages for text in _texts(message) for one in find_personal(text, kinds)}
    return [kind for kind in KINDS if kind in found]


def _texts(message: Message) -> Iterator[str]:
    yield message.content
    if message.reasoning:
        yield message.reasoning
    for call in message.tool_calls:
        yield from _strings(call)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _strings(inner)


def _redacted(row: Conversation, kinds: tuple[Kind, ...]) -> tuple[Conversation, tuple[Change, ...]]:
    """The row with personal data replaced in contents, reasoning and arguments of tool calls."""
    changes: list[Change] = []

    def clear(text: str) -> str:
        found = find_personal(text, kinds)
        changes.extend(_redaction(one) for one in found)
        return redacted(text, found)

    messages = tuple(
        replace(
            message,
            content=clear(message.content),
            reasoning=clear(message.reasoning) if message.reasoning else message.reasoning,
            tool_calls=tuple(cast(Mapping[str, Any], _cleared(call, clear)) for call in message.tool_calls),
        )
        for message in row.messages
    )
    return (replace(row, messages=messages), tuple(changes)) if changes else (row, ())


def _redaction(found: Found) -> Change:
    # The ledger is kept and passed on: what is redacted must not stand in it.
    return Change(f"{found.kind} redacted", f"{found.end - found.start} characters", f"[{found.kind}]")


def _cleared(value: Any, clear: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return clear(value)
    if isinstance(value, Mapping):
        return {key: _cleared(inner, clear) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_cleared(inner, clear) for inner in value]
    return value
