"""Code within text, in Markdown's manner: fenced blocks (``` or ~~~) and inline code, found by position.

The rules are CommonMark's (spec.commonmark.org/0.31.2, fenced code blocks and code spans), save that a fence may be
indented as deep as it likes, since lists and quotes are not parsed.
"""

from __future__ import annotations

import re
from collections import deque

Span = tuple[int, int]

_FENCE = re.compile(r"^[ \t>]*(?P<run>`{3,}|~{3,})(?P<info>[^\n]*)$", re.MULTILINE)
_TICKS = re.compile(r"`+")
_ENDS_IN_FENCE = re.compile(r"(?:`{3,}|~{3,})[ \t\r]*$")
_LATE_FENCE = re.compile(r":[ \t]*```[\w+#-]*[ \t\r]*$", re.MULTILINE)

# How a line of bare code tends to begin or end, and what prose is not full of.
_CODE_LINE = re.compile(
    r"""^\s*(?:
        (?:def|class|import|from\s+[\w.]+\s+import|async\s+def|public|private|protected|static|using|package|namespace
           |const|let|var|function|return|if\s*\(|for\s*\(|while\s*\(|for\s+\w+\s+in\s.*:|if\s.*:|else\s*:|elif\s.*:
           |try\s*:|except\b.*:|print\s*\(|SELECT\s|INSERT\s+INTO|CREATE\s+TABLE|UPDATE\s|DELETE\s+FROM|FROM\s|WHERE\s
           |end\b\s*$|puts\s|echo\s|fn\s|func\s)
        | \#include | \#!/ | <\?php | </?[a-z][\w-]*[^<>\n]*> | @\w+ | [{}()\[\];]+,?;?\s*$ | //\s | /\*
        | [\w.\[\]]+\s*[-+*/]?=(?!=)\s*\S | [\w.]+\([^()\n]*\);?\s*$
        | .*[;{}]\s*$
    )""",
    re.VERBOSE,
)
_CODE_MARK = re.compile(
    r"[;{}][ \t]*$|^[ \t]*(?:def|class|import|from|function|SELECT)\b|=|\)[ \t]*$|>[ \t]*$", re.MULTILINE
)


def code_spans(text: str) -> list[Span]:
    """Start and end of each piece of code in `text`, fences included, in order and apart from each other."""
    if "`" not in text and "~~~" not in text:
        return []
    blocks, _ = _blocks(text)
    spans: list[Span] = []
    at = 0
    for start, end in [*blocks, (len(text), len(text))]:
        spans += _inline(text, at, start)
        spans.append((start, end))
        at = end
    return spans[:-1]


def has_open_fence(text: str) -> bool:
    """Whether a fenced block is opened and not closed, so that the text was probably cut.

    Careless fences count: one opened behind a colon, one closed behind the last line of code or before more words.
    """
    if "```" not in text and "~~~" not in text:
        return False
    if not _blocks(text)[1] and not _LATE_FENCE.search(text):
        return False
    opened = ""
    for line in text.split("\n"):
        found = _FENCE.match(line)
        if opened:
            ending = _ENDS_IN_FENCE.search(line)
            opened = "" if (ending and ending[0][0] == opened) or _speaks_on(found, opened) else opened
        elif found and (found["run"][0] == "~" or "`" not in found["info"]):
            opened = found["run"][0]
        elif _LATE_FENCE.search(line):
            opened = "`"
    return bool(opened)


def _speaks_on(found: re.Match[str] | None, opened: str) -> bool:
    """Whether a line is a fence with words behind it, which an opening one has not."""
    return found is not None and found["run"][0] == opened and re.match(r"\s+\S", found["info"]) is not None


def without_code(text: str) -> str:
    """The text with each piece of code replaced by a space."""
    return _cut_out(text, code_spans(text))


def without_fenced(text: str) -> str:
    """The text with each fenced block replaced by a space; inline code stays, being words of a sentence."""
    if "```" not in text and "~~~" not in text:
        return text
    return _cut_out(text, _blocks(text)[0])


def looks_like_code(text: str) -> bool:
    """Whether a text is mostly code without fences: at least half of its lines that are not blank look like it."""
    if text.startswith("#!"):
        return True
    if not _CODE_MARK.search(text):
        return False
    lines = [line for line in text.split("\n") if line.strip()]
    return 2 * sum(_CODE_LINE.match(line) is not None for line in lines) >= len(lines)


def _blocks(text: str) -> tuple[list[Span], bool]:
    """Fenced blocks, and whether the last is left open (it then runs to the end)."""
    blocks: list[Span] = []
    opened = ""
    start = 0
    for found in _FENCE.finditer(text):
        run, info = found["run"], found["info"]
        if opened:
            if run[0] == opened[0] and len(run) >= len(opened) and not info.strip():
                blocks.append((start, found.end()))
                opened = ""
        elif run[0] == "~" or "`" not in info:
            opened, start = run, found.start()
    if opened:
        blocks.append((start, len(text)))
    return blocks, bool(opened)


def _inline(text: str, start: int, end: int) -> list[Span]:
    """Code spans between two positions: a run of backticks up to the next of the same length.

    A blank line ends the paragraph, and no span with fewer than three backticks runs across it.
    """
    if text.find("`", start, end) < 0:
        return []
    runs = [found.span() for found in _TICKS.finditer(text, start, end)]
    of_length: dict[int, deque[Span]] = {}
    for run in runs:
        of_length.setdefault(run[1] - run[0], deque()).append(run)
    spans: list[Span] = []
    at = start
    for opening in runs:
        if opening[0] < at:
            continue
        same = of_length[opening[1] - opening[0]]
        while same and same[0][0] <= opening[0]:
            same.popleft()
        if same and (opening[1] - opening[0] >= 3 or not _has_blank_line(text, opening[1], same[0][0])):
            at = same[0][1]
            spans.append((opening[0], at))
    return spans


def _has_blank_line(text: str, start: int, end: int) -> bool:
    return text.find("\n\n", start, end) >= 0


def _cut_out(text: str, spans: list[Span]) -> str:
    if not spans:
        return text
    ends = [0, *(end for _, end in spans)]
    starts = [*(start for start, _ in spans), len(text)]
    return " ".join(text[end:start] for end, start in zip(ends, starts, strict=True))
