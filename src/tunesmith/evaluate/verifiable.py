"""Instructions that a program can verify, with the ids and arguments of IFEval (Zhou et al. 2023, arXiv:2311.07911).

Each check tells whether a response follows one instruction; an empty response follows none. They agree with the
authors' program but where that is said: sentences are counted by their ends, and languages told by py3langid.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tunesmith.base.errors import DataError
from tunesmith.data.curation.language import guessed_language, language_of

Arguments = Mapping[str, Any]

LESS_THAN, AT_LEAST = "less than", "at least"
CHOICES = ("My answer is yes.", "My answer is no.", "My answer is maybe.")

_word = re.compile(r"\w+")
_joined_word = re.compile(r"\w+(?:[-./=+]\w+)*")  # a contraction is two
# A sentence ends with . ! or ? (and closing marks) before white space, or with the full stop of other scripts; not
# after a title, an initial or a number that starts a line, as in "1. First".
_sentence_end = re.compile(r"[.!?…]+[\"'”’)\]]*(?=\s|$)|[。！？।؟]+[」』”’]*")
_no_end = re.compile(r"(?:^|[\s(\"'“])(?:mr|mrs|ms|dr|prof|st|vs|etc|e\.g|i\.e|jr|sr|no|fig|[A-Z])\.$", re.IGNORECASE)
_line_number = re.compile(r"(?:^|\n)\s*\d+\.$")
_cut_first_word = re.compile(r"[.,?!'\"]")


def follows(instruction: str, arguments: Arguments, response: str) -> bool:
    """Whether a response follows an instruction: an id of `CHECKS`, with its arguments (those that are None are none).

    Raises DataError for an id that is not known, and for arguments that are missing.
    """
    check = CHECKS.get(instruction)
    if check is None:
        raise DataError(f"there is no instruction {instruction!r} to verify. There is {', '.join(CHECKS)}.")
    given = {name: value for name, value in arguments.items() if value is not None}
    try:
        return bool(response.strip()) and check(response, given)
    except KeyError as error:
        raise DataError(f"the instruction {instruction} lacks its argument {error}; it has {given}.") from error


def sentences(text: str) -> int:
    """How many sentences a text has, whatever its language; the rest after the last end is one too."""
    count, start = 0, 0
    for match in _sentence_end.finditer(text):
        before = text[start : match.end()]
        if _no_end.search(before) or _line_number.search(before):
            continue
        count += bool(_word.search(before))
        start = match.end()
    return count + bool(_word.search(text[start:]))


def _compared(count: int, wanted: Any, relation: str) -> bool:
    if relation not in (LESS_THAN, AT_LEAST):
        raise DataError(f"the relation {relation!r} of an instruction is neither {LESS_THAN!r} nor {AT_LEAST!r}.")
    return count < int(wanted) if relation == LESS_THAN else count >= int(wanted)


# Keywords


def _keywords(response: str, given: Arguments) -> bool:
    return all(_found(keyword, response) for keyword in given["keywords"])


def _keyword_frequency(response: str, given: Arguments) -> bool:
    return _compared(_found(given["keyword"], response), given["frequency"], given["relation"])


def _forbidden_words(response: str, given: Arguments) -> bool:
    return not any(re.search(rf"\b{re.escape(word)}\b", response, re.IGNORECASE) for word in given["forbidden_words"])


def _letter_frequency(response: str, given: Arguments) -> bool:
    count = Counter(response.lower())[str(given["letter"]).lower()]
    return _compared(count, given["let_frequency"], given["let_relation"])


def _found(keyword: str, response: str) -> int:
    return len(re.findall(re.escape(keyword), response, re.IGNORECASE))


# Language and length


def _language(response: str, given: Arguments) -> bool:
    return guessed_language(response) == str(given["language"]).lower().partition("-")[0]


def _sentences(response: str, given: Arguments) -> bool:
    return _compared(sentences(response), given["num_sentences"], given["relation"])


def _words(response: str, given: Arguments) -> bool:
    return _compared(len(_word.findall(response)), given["num_words"], given["relation"])


def _paragraphs(response: str, given: Arguments) -> bool:
    """Paragraphs stand between lines of `***`."""
    parts = re.split(r"\s?\*\*\*\s?", response)
    return all(part.strip() for part in parts[1:-1]) and _held(parts) == int(given["num_paragraphs"])


def _first_word(response: str, given: Arguments) -> bool:
    """Paragraphs stand between blank lines; the n-th starts with the word."""
    parts, place = response.split("\n\n"), int(given["nth_paragraph"])
    count = _held(parts)
    if count != int(given["num_paragraphs"]) or place > count or not parts[place - 1].strip():
        return False
    word = parts[place - 1].split()[0].lstrip("'").lstrip('"')
    return _cut_first_word.split(word, maxsplit=1)[0].lower() == str(given["first_word"]).lower()


def _held(parts: Iterable[str]) -> int:
    return sum(bool(part.strip()) for part in parts)


# Content and format


def _placeholders(response: str, given: Arguments) -> bool:
    return len(re.findall(r"\[.*?\]", response)) >= int(given["num_placeholders"])


def _postscript(response: str, given: Arguments) -> bool:
    marker = str(given["postscript_marker"])
    known = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}
    return bool(re.search(known.get(marker, re.escape(marker.lower())), response.lower()))


def _bullets(response: str, given: Arguments) -> bool:
    stars = re.findall(r"^\s*\*[^\*].*$", response, re.MULTILINE)
    dashes = re.findall(r"^\s*-.*$", response, re.MULTILINE)
    return len(stars) + len(dashes) == int(given["num_bullets"])


def _choice(response: str, given: Arguments) -> bool:
    return any(choice in response for choice in CHOICES)


def _highlights(response: str, given: Arguments) -> bool:
    single = [text.strip("*").strip() for text in re.findall(r"\*[^\n\*]*\*", response)]
    double = [text[2:-2].strip() for text in re.findall(r"\*\*[^\n\*]*\*\*", response)]
    return _held([*single, *double]) >= int(given["num_highlights"])


def _sections(response: str, given: Arguments) -> bool:
    marks = re.findall(rf"\s?{re.escape(str(given['section_spliter']))}\s?\d+\s?", response)
    return len(marks) >= int(given["num_sections"])


def _json(response: str, given: Arguments) -> bool:
    text = response.strip()
    for fence in ("```json", "```Json", "```JSON", "```"):
        text = text.removeprefix(fence)
    try:
        json.loads(text.removesuffix("```").strip())
    except (ValueError, RecursionError):
        return False
    return True


def _title(response: str, given: Arguments) -> bool:
    return any(text.lstrip("<").rstrip(">").strip() for text in re.findall(r"<<[^\n]+>>", response))


# Combinations, start and end, case, punctuation


def _two_responses(response: str, given: Arguments) -> bool:
    parts = response.split("******")
    held = [part.strip() for part in parts if part.strip()]
    return all(part.strip() for part in parts[1:-1]) and len(held) == 2 and held[0] != held[1]


def _repeated_prompt(response: str, given: Arguments) -> bool:
    return response.strip().lower().startswith(str(given["prompt_to_repeat"]).strip().lower())


def _end(response: str, given: Arguments) -> bool:
    return response.strip().strip('"').lower().endswith(str(given["end_phrase"]).strip().lower())


def _quotation(response: str, given: Arguments) -> bool:
    text = response.strip()
    return len(text) > 1 and text[0] == text[-1] == '"'


def _capital_words(response: str, given: Arguments) -> bool:
    count = sum(word.isupper() for word in _joined_word.findall(response))
    return _compared(count, given["capital_frequency"], given["capital_relation"])


def _capitals(response: str, given: Arguments) -> bool:
    return response.isupper() and language_of(response.lower())[0] in ("en", "")


def _lowercase(response: str, given: Arguments) -> bool:
    return response.islower() and language_of(response)[0] in ("en", "")


def _no_comma(response: str, given: Arguments) -> bool:
    return "," not in response


CHECKS: Mapping[str, Callable[[str, Arguments], bool]] = {
    "keywords:existence": _keywords,
    "keywords:frequency": _keyword_frequency,
    "keywords:forbidden_words": _forbidden_words,
    "keywords:letter_frequency": _letter_frequency,
    "language:response_language": _language,
    "length_constraints:number_sentences": _sentences,
    "length_constraints:number_paragraphs": _paragraphs,
    "length_constraints:number_words": _words,
    "length_constraints:nth_paragraph_first_word": _first_word,
    "detectable_content:number_placeholders": _placeholders,
    "detectable_content:postscript": _postscript,
    "detectable_format:number_bullet_lists": _bullets,
    "detectable_format:constrained_response": _choice,
    "detectable_format:number_highlighted_sections": _highlights,
    "detectable_format:multiple_sections": _sections,
    "detectable_format:json_format": _json,
    "detectable_format:title": _title,
    "combination:two_responses": _two_responses,
    "combination:repeat_prompt": _repeated_prompt,
    "startend:end_checker": _end,
    "startend:quotation": _quotation,
    "change_case:capital_word_frequency": _capital_words,
    "change_case:english_capital": _capitals,
    "change_case:english_lowercase": _lowercase,
    "punctuation:no_comma": _no_comma,
}
