"""Personal data in text: e-mail addresses, phone numbers, IBANs, payment cards, secret keys, IP addresses.

What has a checksum is checked (Luhn for cards, ISO 7064 MOD 97-10 for IBANs); what is reserved for examples is nobody's
(RFC 2606 domains, 555-01xx numbers, keys that say EXAMPLE). Each kind is looked for only where a sign of it is.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple, get_args

Kind = Literal["email", "phone", "iban", "card", "key", "ip"]
KINDS: tuple[Kind, ...] = get_args(Kind)


class Found(NamedTuple):
    """A piece of personal data at text[start:end]."""

    kind: Kind
    start: int
    end: int


def find_personal(text: str, kinds: Sequence[Kind] = KINDS) -> list[Found]:
    """The personal data of a text, in order and apart from each other."""
    has_number = any(kind in kinds for kind in _NUMBERS) and _DIGITS.search(text)
    sought = [kind for kind in KINDS if kind in kinds and (has_number or kind not in _NUMBERS)]
    found = [one for kind in sought for one in _FINDERS[kind](text)]
    if len(found) < 2:
        return found
    apart: list[Found] = []
    for one in sorted(found, key=lambda one: (one.start, -one.end)):
        if not apart or one.start >= apart[-1].end:
            apart.append(one)
    return apart


def redacted(text: str, found: Sequence[Found]) -> str:
    """The text with each piece found replaced by its kind, as [email]."""
    parts, at = [], 0
    for one in found:
        parts += [text[at : one.start], f"[{one.kind}]"]
        at = one.end
    return "".join([*parts, text[at:]])


_EMAIL = re.compile(
    r"(?<![\w.+%/:-])(?P<name>[A-Za-z0-9_%+-]+(?:\.[A-Za-z0-9_%+-]+){0,8})@(?P<domain>(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24})\b(?!\()"
)
# RFC 2606 and 6761, and what writers take for such.
_EXAMPLE_DOMAIN = re.compile(
    r"(?:\A|\.)(?:(?:\w*example\w*|domain|mydomain|yourdomain|email|mail|\w*company|sample|test|website|abc|xyz|acme|foo|bar"
    r"|server|host)\.[a-z]{2,3}|[\w-]+\.(?:test|example|invalid|localhost|local))\Z",
    re.I,
)
_NOBODY = frozenset(
    "git svn hg noreply no-reply user username name your.name yourname example test email me you".split()
)


def _emails(text: str) -> Iterator[Found]:
    if "@" in text:
        for one in _EMAIL.finditer(text):
            if one["name"].lower() not in _NOBODY and not _EXAMPLE_DOMAIN.search(one["domain"]):
                yield Found("email", *one.span())


_NUMBERS: tuple[Kind, ...] = ("phone", "iban", "card")
_DIGITS = re.compile(r"[0-9][0-9 ./()-]{5,}[0-9]")  # without it, none of them is there
_PHONE = re.compile(
    r"""(?<![\w.,$€£¥+*/=^-])(?:
        \+[1-9]\d{0,2}(?:[ .-]?(?:\(\d{1,5}\)|\d{1,5})){2,5}                       # international: +49 30 1234567
      | (?:1[ .-])?\([2-9]\d{2}\)[ .-]?[2-9]\d{2}[ .-]\d{4}               # North American, with brackets
      | (?:1[.-])?[2-9]\d{2}(?P<gap>[.-])[2-9]\d{2}(?P=gap)\d{4}          # and without
    )(?![\w*/=^]|[.,-]\d)""",
    re.VERBOSE,
)
_CALLED = re.compile(
    r"\b(?:phone|telephone|tel|cell|mobile|fax|whatsapp|call(?:ed)?(?:\ (?:me|us|him|her))?(?:\ at)?|text\ me\ at)\b"
    r"(?:\s+(?:number|no|nr))?\.?(?:\s+(?:is|at|on))?\s*[:=#]?\s*[\"']?"
    r"(?P<number>\+?\(?\d(?:[ ./()-]{0,2}\d){6,14})(?!\d|\.\d|\s*[%*/=])",
    re.I,
)
_FICTIONAL = re.compile(r"555[ .-]?01\d\d\Z|555[ .-]?(?:5555|1234|0000|4567|6789)\Z|\A\D*(?:1[ .-])?\(?555\D")
_RUNS = ("1234567", "7654321", "0000000", "9876543", "0123456")


def _phones(text: str) -> Iterator[Found]:
    spans = {one.span() for one in _PHONE.finditer(text)}
    spans |= {one.span("number") for one in _CALLED.finditer(text)}
    for start, end in sorted(spans):
        digits = re.sub(r"\D", "", text[start:end])
        made_up = _FICTIONAL.search(text[start:end]) or any(run in digits for run in _RUNS) or len(set(digits)) < 3
        if 7 <= len(digits) <= 15 and not made_up:
            yield Found("phone", start, end)


_CARD = re.compile(
    r"(?<![\w.,-])(?:\d{13,19}|\d{4}([ -])\d{4}\1\d{4}\1\d{4}|3[47]\d{2}([ -])\d{6}\2\d{5})(?![\w-]|[.,]\d)"
)
_ISSUER = re.compile(
    r"(?:4(?:\d{12}|\d{15}|\d{18})|(?:5[1-5]\d{2}|222[1-9]|22[3-9]\d|2[3-6]\d{2}|27[01]\d|2720)\d{12}|3[47]\d{13}"
    r"|6(?:011|5\d{2}|4[4-9]\d)\d{12}|3(?:0[0-5]\d|[68]\d{2})\d{10}|35(?:2[89]|[3-8]\d)\d{12})\Z"
)


def _cards(text: str) -> Iterator[Found]:
    for one in _CARD.finditer(text):
        digits = re.sub(r"\D", "", one[0])
        if _ISSUER.match(digits) and len(set(digits)) > 2 and passes_luhn(digits):
            yield Found("card", *one.span())


def passes_luhn(digits: str) -> bool:
    """Whether the last digit is the check digit of the others (ISO/IEC 7812-1, annex B)."""
    doubled = [int(d) if place % 2 == 0 else sum(divmod(2 * int(d), 10)) for place, d in enumerate(reversed(digits))]
    return sum(doubled) % 10 == 0


_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?![A-Za-z0-9])")
# Lengths by country, of the SWIFT IBAN registry.
_COUNTRIES_OF_LENGTH = {
    15: "NO",
    16: "BE",
    18: "DK FI FO GL NL",
    19: "MK SI",
    20: "AT BA EE KZ LT LU XK",
    21: "CH HR LI LV",
    22: "BG BH CR DE GB GE IE ME RS VA",
    23: "AE GI IL IQ",
    24: "AD CZ ES MD PK RO SA SE SK TN VG",
    25: "PT",
    26: "DZ IS TR",
    27: "FR GR IT MC MR SM",
    28: "AL AZ BY CY DO GT HU LB PL SV",
    29: "BR EG PS QA UA",
    30: "JO KW MU",
    31: "MT SC",
    32: "LC",
}
_IBAN_LENGTHS = {country: length for length, all in _COUNTRIES_OF_LENGTH.items() for country in all.split()}


def _ibans(text: str) -> Iterator[Found]:
    for one in _IBAN.finditer(text):
        # What follows in capitals may have been taken along; the country says how long it is.
        end = one.start()
        wanted = _IBAN_LENGTHS.get(one[0][:2], 0)
        while wanted and end < one.end():
            wanted -= text[end] != " "
            end += 1
        if not wanted and end > one.start() and passes_mod97(text[one.start() : end].replace(" ", "")):
            yield Found("iban", one.start(), end)


def passes_mod97(iban: str) -> bool:
    """Whether an IBAN's check digits are right (ISO 13616, ISO 7064 MOD 97-10)."""
    return int("".join(str(int(letter, 36)) for letter in iban[4:] + iban[:4])) % 97 == 1


# How keys begin, by a letter that most texts lack: looking for one is faster than for all.
_KEY_SIGNS = {
    "": ("AKIA", "ASIA", "AIza", "SG.", "eyJ"),
    "_": ("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "sk_live_", "rk_live_", "hf_", "npm_"),
    "-": ("sk-", "xox", "glpat-", "pypi-Ag", "PRIVATE KEY"),
}
_KEY = re.compile(
    r"""(?<![A-Za-z0-9_])(?:
        (?:AKIA|ASIA)[A-Z0-9]{16} | sk-(?:proj-|ant-|svcacct-|or-)?[A-Za-z0-9_-]{20,200} | gh[pousr]_[A-Za-z0-9]{36,255}
      | github_pat_[A-Za-z0-9_]{60,100} | xox[abprs]-[A-Za-z0-9-]{20,200} | AIza[A-Za-z0-9_-]{35}
      | [sr]k_live_[A-Za-z0-9]{24,99}
      | hf_[A-Za-z0-9]{30,40} | glpat-[A-Za-z0-9_-]{20,30} | npm_[A-Za-z0-9]{36} | pypi-Ag[A-Za-z0-9_-]{50,300}
      | SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}
      | eyJ[A-Za-z0-9_-]{10,2000}\.eyJ[A-Za-z0-9_-]{10,4000}\.[A-Za-z0-9_-]{20,1000}
    )(?![A-Za-z0-9])
    | -----BEGIN\ (?:[A-Z]+\ )?PRIVATE\ KEY-----[A-Za-z0-9+/=\s]{40,8000}-----END\ (?:[A-Z]+\ )?PRIVATE\ KEY-----""",
    re.VERBOSE,
)


def _keys(text: str) -> Iterator[Found]:
    if any(letter in text and any(sign in text for sign in signs) for letter, signs in _KEY_SIGNS.items()):
        for one in _KEY.finditer(text):
            # A real key is random: letters and digits, of many kinds; a made-up one is words or rows of x.
            body = one[0]
            random = any(c.isdigit() for c in body) and any(c.isalpha() for c in body) and len(set(body)) >= 10
            if random and not re.search(r"example|your|xxxx|1234567890|abcdef", body, re.I):
                yield Found("key", *one.span())


_IP = re.compile(
    r"(?<![\w.-])\d{1,3}(?:\.\d{1,3}){3}(?![\w-]|\.\d)|(?<![\w:.])(?:[0-9a-fA-F]{1,4}:{1,2}){3,7}[0-9a-fA-F]{1,4}(?![\w:])"
)


def _addresses(text: str) -> Iterator[Found]:
    for one in _IP.finditer(text):
        try:
            is_somebodys = ipaddress.ip_address(one[0]).is_global
        except ValueError:
            continue
        # Three zeros are a version or a made-up address.
        if is_somebodys and not one[0].endswith(".0.0"):
            yield Found("ip", *one.span())


_FINDERS: dict[Kind, Callable[[str], Iterator[Found]]] = {
    "email": _emails, "phone": _phones, "iban": _ibans, "card": _cards, "key": _keys, "ip": _addresses
}  # fmt: skip
