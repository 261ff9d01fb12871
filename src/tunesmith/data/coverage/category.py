"""What kind of task a row sets: recognised from its words by weighed cues, or given by its cluster's name.

The kinds are the use cases of InstructGPT (arXiv:2203.02155, table 1) with those added that it leaves in one: coding,
mathematics, reasoning, translation, tool use and role play. A question is `closed_qa` where the text that holds its
answer is given with it, `open_qa` where knowledge has to answer.

Cues are looked for where people say what they want: in the first message of the user, of a long one in its beginning
and its end, and in the beginning of the response. The weights of the cues that are found are added up; the kind with
the highest sum is taken. docs/coverage.md says how often that is right.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from tunesmith.base.conversation import Conversation
from tunesmith.data.coverage.cues import ANSWERED, ASKED, BEGINNING, SIGNS, of_words

Category = Literal[
    "extraction", "closed_qa", "writing", "brainstorming", "summarisation", "rewriting", "translation", "open_qa",
    "classification", "reasoning", "math", "coding", "tool_use", "conversation", "role_play", "other",
]  # fmt: skip
CATEGORIES: tuple[str, ...] = get_args(Category)
FAMILIES: Mapping[str, str] = {
    "closed_qa": "extraction",
    **dict.fromkeys(("writing", "brainstorming", "summarisation", "rewriting", "translation"), "generation"),
    "open_qa": "knowledge",
    "math": "reasoning",
    "role_play": "conversation",
}
"""The coarser kind of a category; of the others it is themselves."""
OTHER = "other"

_HEAD, _TAIL, _ANSWER = 220, 160, 240  # characters that are looked at: of a message's ends, and of a response
_GIVEN_WORDS = 7  # words beside the request from which on a text counts as given

# Names that clusters are often given, squeezed to letters, beside the categories' own.
_NAMED = {
    "summarization": "summarisation",
    "summary": "summarisation",
    "mathematics": "math",
    "arithmetic": "math",
    "maths": "math",
    "code": "coding",
    "programming": "coding",
    "logic": "reasoning",
    "commonsense": "reasoning",
    "sentiment": "classification",
    "topicclassification": "classification",
    "entailment": "classification",
    "nli": "classification",
    "readingcomprehension": "closed_qa",
    "extractiveqa": "closed_qa",
    "closedbookqa": "open_qa",
    "generalqa": "open_qa",
    "structuretotext": "writing",
    "creativewriting": "writing",
    "informationextraction": "extraction",
    "functioncalling": "tool_use",
    "toolcalling": "tool_use",
    "tools": "tool_use",
    "chat": "conversation",
    "chitchat": "conversation",
    "dialogue": "conversation",
}
_BY_NAME = {name.replace("_", ""): name for name in CATEGORIES} | _NAMED

# Of the user's message as it is written: what a named character would say.
_CHARACTER = re.compile(
    r"\bwould (?:the )?(?:[A-Z][\w.']+ ?){1,4}(?:say|give|tell|respond|react|reply|describe|ask|think|answer|feel)\b|"
    r"^(?:Dr|Mr|Mrs|Captain|Sir|Lady|King|Queen) [A-Z]"
)
_QUESTION = re.compile(r"\?|^(?:what|who|when|where|why|which|how)\b|\bquestion\b")
_AMOUNT = re.compile(
    r"\bhow (?:many|much|long|far|old|fast|tall)\b|\bwhat (?:is|does|was|time|percent\w*|fraction)\b|\bwhen does\b"
)
_VERDICT = re.compile(r"\s*(?:yes|no|true|false|positive|negative|neutral|maybe)\b", re.IGNORECASE)
_DIGITS = re.compile(r"\d+")


_CUES = tuple((category, weight, of_words(patterns).search) for category, weight, patterns in ASKED)
_CUES += tuple((category, weight, re.compile(pattern).search) for category, weight, pattern in SIGNS)
_CUES += tuple((category, weight, re.compile(pattern).match) for category, weight, pattern in BEGINNING)
_ANSWER_CUES = tuple((category, weight, re.compile(pattern).search) for category, weight, pattern in ANSWERED)


@dataclass(frozen=True, slots=True)
class Kind:
    """A row's category. given: by the name of its cluster, and not recognised from its words."""

    category: str
    given: bool = False


def category_of(row: Conversation, clusters: Mapping[str, str] | None = None) -> Kind:
    """The category of a row of instruction data.

    clusters: the categories of clusters, by their names; of others a name that says it (`summarization`, `math`) does.
    """
    named = (clusters or {}).get(row.cluster) or category_named(row.cluster)
    if named:
        return Kind(named, given=True)
    if row.tools or any(message.tool_calls or message.role == "tool" for message in row.messages):
        return Kind("tool_use")
    asked = next((message.content for message in row.messages if message.role == "user"), "")
    answer = next((message.content for message in row.messages if message.role == "assistant"), "")
    found = recognised(asked, answer)
    turns = sum(message.role == "user" for message in row.messages)
    return Kind("conversation" if turns > 1 and found in ("open_qa", OTHER) else found)


def category_named(cluster: str) -> str | None:
    """The category that a cluster's name says, if it says one."""
    return _BY_NAME.get(re.sub(r"[^a-z]", "", cluster.lower())) if cluster else None


def recognised(asked: str, answer: str = "") -> str:
    """The category that the words of a request and of its answer speak for."""
    text = asked.strip()
    ends = text if len(text) <= _HEAD + _TAIL else f"{text[:_HEAD]} ... {text[-_TAIL:]}"
    seen, beginning = ends.lower(), answer[:_ANSWER]
    sums: dict[str, float] = {}
    for category, weight, found_in in _CUES:
        if found_in(seen):
            sums[category] = sums.get(category, 0.0) + weight
    for category, weight, found_in in _ANSWER_CUES:
        if beginning and found_in(beginning):
            sums[category] = sums.get(category, 0.0) + weight
    if _CHARACTER.search(ends):
        sums["role_play"] = sums.get("role_play", 0.0) + 3
    for category, weight in _by_shape(text, seen, answer):
        sums[category] = sums.get(category, 0.0) + weight
    # Of equals, the one whose cues come first.
    return max(sums, key=sums.__getitem__) if sums else OTHER


def _by_shape(text: str, seen: str, answer: str) -> list[tuple[str, float]]:
    """What the form of a request and its answer speaks for: a text given with it, amounts, the answer's length."""
    found = []
    request, _, given = text.partition("\n")
    words = len(given.split()) if given.strip() else 0
    asks_below = words < 40 and given.rstrip().endswith("?")
    told = (words >= _GIVEN_WORDS and not asks_below) or len(text.split()) > 60
    question = _QUESTION.search(seen) is not None
    short = 0 < len(answer) < 40 and len(answer.split()) <= 3
    if told:
        found.append(("conversation", -4.0))  # who makes conversation does not bring a text
        found += [("closed_qa", 2.0)] if question else [("rewriting", 0.5), ("summarisation", 0.4), ("extraction", 0.3)]
    elif question:
        found.append(("open_qa", 0.5))
    if _AMOUNT.search(seen) and len(_DIGITS.findall(seen)) >= 2 and not (told and words > 80):
        found.append(("math", 2.0))
    if short:
        found += [("classification", 0.5), ("closed_qa", 0.3 if question or not told else 1.0)]
        found += [("classification", 1.5)] if _VERDICT.match(answer) else []
    if not question and not told and len(request) < 60 and request.endswith((".", "!")):
        found.append(("conversation", 0.2))
    return found
