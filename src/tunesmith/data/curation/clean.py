"""Cleaning a row: broken text repaired, empty phrases around responses removed, white space put right.

Code is never touched: neither fenced blocks nor inline code, nor the white space of bare code. Tool calls, tool
results and reasoning stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import ftfy
from ftfy.badness import is_bad

from tunesmith.base.conversation import Conversation, Message
from tunesmith.data.curation.fences import code_spans, looks_like_code
from tunesmith.data.curation.phrases import closing_start, preamble_end
from tunesmith.data.curation.stage import Change, Outcome

# Only what was broken on its way is mended. Curly quotes, ligatures, wide letters and entities may be meant.
_REPAIR = ftfy.TextFixerConfig(
    unescape_html=False,
    fix_latin_ligatures=False,
    fix_character_width=False,
    uncurl_quotes=False,
    fix_line_breaks=False,
    normalization=None,
    explain=False,
)
_CONTROLS = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f\u206a-\u206f\ufeff\ufff9-\ufffc\ud800-\udfff]")
_MAYBE_MOJIBAKE = re.compile(
    "[^\x00-\x7f][^\x00-\x7f]"
)  # UTF-8 read as something else makes two letters or more of one
_ABOUT_ENCODINGS = re.compile(r"mojibake|utf-?8|unicode|latin-?1|cp-?125\d|windows-125\d|iso-8859|charset", re.I)

_SPACES = " \t\r\xa0"
_BLANK_LINES = re.compile("\n{3,}")
_BLANK_START = re.compile("\\A(?:[ \t\r\xa0]*\n)+")
_SPACE_START = re.compile("\\A[ \xa0](?=\\S)")
_CONNECTED = re.compile(r"\b(?:however|but|said|being said|nevertheless|nonetheless),?\s+\Z", re.I)
_SHOWN = 60  # characters of a text shown on either side of a change


@dataclass(frozen=True, slots=True)
class Clean:
    """The stage that cleans rows; each switch is one thing it does.

    repair: undo mojibake, drop control characters (ftfy). preambles, closings: remove "Sure!", "Here is a list:",
    "I hope this helps!" from responses. white_space: no trailing space, one blank line at most, nothing around the
    whole; two spaces before a line are Markdown's line break and stay.
    A message left empty drops its row: `empty_after_cleaning`.
    """

    repair: bool = True
    preambles: bool = True
    closings: bool = True
    white_space: bool = True

    def __call__(self, row: Conversation) -> Outcome:
        changes: list[Change] = []
        messages: list[Message] = []
        asked = ""
        for number, message in enumerate(row.messages, 1):
            before = message.content
            content = before if message.role == "tool" else self._cleaned(message, asked, changes)
            if content != before:
                if not content.strip() and before.strip() and not message.tool_calls:
                    detail = f"message {number}, the {message.role}'s, was {before[:_SHOWN]!r}"
                    return Outcome.dropped("empty_after_cleaning", detail)
                message = replace(message, content=content)
            messages.append(message)
            asked = content if message.role == "user" else asked
        return Outcome(replace(row, messages=tuple(messages)) if changes else row, changes=tuple(changes))

    def _cleaned(self, message: Message, asked: str, changes: list[Change]) -> str:
        before = message.content
        text = self._once(before, message.role == "assistant", asked, changes)
        # Whether letters look broken depends on what stands beside them, and that may just have gone.
        while text != before and not text.isascii():
            before, text = text, self._once(text, message.role == "assistant", asked, changes)
        return text

    def _once(self, text: str, is_response: bool, asked: str, changes: list[Change]) -> str:
        if self.repair:
            text = _noted("text repaired", text, repaired(text), changes)
        if self.white_space:
            text = _noted("white space", text, with_plain_space(text), changes)
        spaced = text
        if is_response and self.preambles:
            text = _noted("preamble removed", text, without_preamble(text, asked), changes)
        if is_response and self.closings:
            text = _noted("closing removed", text, without_closing(text, asked), changes)
        return with_plain_space(text) if self.white_space and text != spaced else text


def repaired(text: str) -> str:
    """The text with mojibake undone and control characters dropped, outside code; straight text is left as it is.

    A text that speaks of encodings is left alone, since it may show mojibake on purpose.
    """
    if not _is_broken(text) or _ABOUT_ENCODINGS.search(text):
        return text
    return _outside_code(text, _repaired_lines)


def _repaired_lines(prose: str) -> str:
    # Line by line, as ftfy itself goes; it would look at each for much longer.
    return "\n".join(str(ftfy.fix_text(line, _REPAIR)) if _is_broken(line) else line for line in prose.split("\n"))


def _is_broken(text: str) -> bool:
    if _CONTROLS.search(text):
        return True
    if text.isascii():
        return False
    return ("Ã " in text or _MAYBE_MOJIBAKE.search(text) is not None) and is_bad(text)


def without_preamble(response: str, asked: str) -> str:
    """The response from where it begins to say something; "" if it never does."""
    start = preamble_end(response, asked)
    rest = response[start:]
    # Behind "However, ..." a sentence begins anew; what else follows may be code, where a capital would be a fault.
    return rest[:1].upper() + rest[1:] if start and _CONNECTED.search(response, 0, start) else rest


def without_closing(response: str, asked: str) -> str:
    """The response without the offers of more help that end it."""
    end = closing_start(response, asked)
    if end == len(response) or any(start < end < stop for start, stop in code_spans(response)):
        return response
    return response[:end].rstrip()


def with_plain_space(text: str) -> str:
    """The text without trailing space, with one blank line at most in a row, outside code; bare code keeps its lines.

    A single space before the whole goes too; more may be the indentation of code.
    """
    if not _is_untidy(text):
        return text
    if not looks_like_code(text):
        text = _outside_code(text, _tidied)
    spans = code_spans(text)
    if not spans or spans[0][0] > 0:
        text = _SPACE_START.sub("", _BLANK_START.sub("", text))
        spans = code_spans(text)
    return text if spans and spans[-1][1] == len(text) else text.rstrip()


def _is_untidy(text: str) -> bool:
    # Written out, since most of the time goes to rows with nothing to do.
    if " \n" in text or "\n\n\n" in text or text[:1].isspace() or text[-1:].isspace():
        return True
    return "\t\n" in text or "\r\n" in text or "\xa0\n" in text


def _tidied(prose: str) -> str:
    lines = prose.split("\n")
    for place, line in enumerate(lines[:-1]):
        bare = line.rstrip(_SPACES)
        # Two spaces behind text and before more of it are Markdown's line break.
        is_break = bare and line.endswith("  ") and lines[place + 1][:1].strip()
        lines[place] = bare + "  " if is_break else bare
    return _BLANK_LINES.sub("\n\n", "\n".join(lines))


def _outside_code(text: str, change: Callable[[str], str]) -> str:
    """The text with what lies between pieces of code changed."""
    parts, at = [], 0
    for start, end in code_spans(text):
        parts += [change(text[at:start]), text[start:end]]
        at = end
    return "".join([*parts, change(text[at:])])


def _noted(what: str, before: str, after: str, changes: list[Change]) -> str:
    """`after`, with the change written down: what stands around the first difference."""
    if before != after:
        start = max(0, _first_difference(before, after) - _SHOWN // 3)
        changes.append(Change(what, before[start : start + _SHOWN], after[start : start + _SHOWN]))
    return after


def _first_difference(one: str, other: str) -> int:
    low, high = 0, min(len(one), len(other))
    while low < high:  # all before `low` is the same
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one[low:middle] == other[low:middle] else (low, middle - 1)
    return low
