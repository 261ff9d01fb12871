"""Numbers and text as people read them. Every function takes None, for what was not measured, and says "–"."""

from __future__ import annotations

from collections.abc import Sequence

NOTHING = "–"
MINUS = "−"
DIRECTIONS = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"  # they can reorder the page


def signed(text: str, value: float) -> str:
    return (MINUS if value < 0 else "+") + text


def whole(value: float | None) -> str:
    return NOTHING if value is None else f"{value:,.0f}".replace("-", MINUS)


def decimal(value: float | None, digits: int = 3) -> str:
    return NOTHING if value is None else f"{value:,.{digits}f}".replace("-", MINUS)


def percent(value: float | None, digits: int = 1) -> str:
    return NOTHING if value is None else f"{100 * value:.{digits}f}%".replace("-", MINUS)


def points(value: float | None) -> str:
    """A difference of two percentages, in points."""
    return NOTHING if value is None else signed(f"{abs(100 * value):.1f}", round(value, 3))


def change(value: float | None, digits: int = 3) -> str:
    return NOTHING if value is None else signed(f"{abs(value):.{digits}f}", round(value, digits))


def relative(value: float | None) -> str:
    """A relative change, in percent with its sign."""
    return NOTHING if value is None else points(value) + "%"


def short(value: float | None) -> str:
    """A large number to three figures: 26.1M."""
    if value is None:
        return NOTHING
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if unit == 'k' else size):.3g}{unit}"
    return whole(value)


def duration(seconds: float | None) -> str:
    if seconds is None:
        return NOTHING
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def counted(value: float, one: str, many: str | None = None) -> str:
    """`1 row`, `2 rows`."""
    return f"{whole(value)} {one if value == 1 else many or one + 's'}"


def listed(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([*([", ".join(names[:-1])] if names[:-1] else []), *names[-1:]])


def spaced(name: object) -> str:
    """A name of the files as words: `too_long` is `too long`."""
    return str(name).replace("_", " ")


def sentence(text: str) -> str:
    """A warning as a sentence: a capital first and a full stop last, but for names of keys and files."""
    first, end = text.split(" ", 1)[0], text.rstrip()[-1:]
    capital = text if not first.isalpha() else text[:1].upper() + text[1:]
    return capital if end in ("", ".", "!", "?", "…") else capital.rstrip() + "."


def clipped(text: str, length: int) -> str:
    """At most `length` characters, and how many were left out."""
    left = len(text) - length
    return text if left <= 0 else f"{text[:length]}… ({whole(left)} more characters)"


def printable(text: str) -> str:
    """Text any browser shows as it is: control and direction characters made visible, lone surrogates replaced."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_visible, text)).encode("utf-8", "replace").decode()


def _visible(char: str) -> str:
    if char in "\n\t":
        return char
    if char < "\x20":
        return chr(0x2400 + ord(char))
    return "\ufffd" if "\x7f" <= char <= "\x9f" or char in DIRECTIONS else char
