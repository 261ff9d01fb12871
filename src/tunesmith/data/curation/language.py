"""The language of a text, where there is enough prose to tell; py3langid sees Serbian in "ok" and Latin in formulas."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

from py3langid.langid import MODEL_FILE, LanguageIdentifier

from tunesmith.base.errors import UserError
from tunesmith.data.curation.fences import looks_like_code, without_code
from tunesmith.data.sources.formats import nearest

MIN_LETTERS = 80  # below, it errs often; a letter of Chinese, Japanese or Korean says as much as three
_ENOUGH = 2000  # characters that are looked at
_NOT_PROSE = re.compile(r"https?://\S+|\S+@\S+|<[^<>]{1,100}>|\$[^$\n]{1,200}\$|\\\w+|<<[^<>]*>>")
_LETTER = re.compile(r"[^\W\d_]")
_DENSE = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_LETTERS_OF_PROSE = 0.7  # least share of letters in what is no white space; formulas, tables and code have fewer


def language_of(text: str) -> tuple[str, float]:
    """The language of a text as an ISO 639 code, and how sure that is (0 to 1); ("", 0.0) where it can't be told.

    It can't in short texts, in code, in formulas and lists of numbers.
    """
    prose = _NOT_PROSE.sub(" ", without_code(text[:_ENOUGH])).strip()
    letters = len(_LETTER.findall(prose))
    weight = letters if prose.isascii() else letters + 2 * len(_DENSE.findall(prose))
    solid = sum(map(len, prose.split()))
    if weight < MIN_LETTERS or letters < _LETTERS_OF_PROSE * solid or looks_like_code(prose):
        return "", 0.0
    code, sureness = _identifier().classify(prose.title() if prose.isupper() else prose)
    return ("", 0.0) if code == "zxx" else (str(code), float(sureness))


def guessed_language(text: str) -> str:
    """The likeliest language of a text, however little there is to tell by: a guess where `language_of` has none."""
    found, _ = language_of(text)
    return found or str(_identifier().classify(text.title() if text.isupper() else text)[0])


def check_languages(codes: Iterable[str]) -> None:
    """Raise UserError for a code that can't be recognised."""
    known = _identifier().labels
    for code in codes:
        if code not in known:
            raise UserError(
                f"language {code!r} can't be recognised, so every row would be dropped. Give ISO 639 codes, as en, de, "
                f"zh. {nearest(code, known)}"
            )


@cache
def _identifier() -> LanguageIdentifier:
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
