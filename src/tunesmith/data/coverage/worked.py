"""Worked reasoning: rows that show how their answer is found, and do not only state it."""

from __future__ import annotations

import re

from tunesmith.base.conversation import Conversation, Message

LEAST_WORDS = 5  # of working before the result: "The answer is 4." shows none

_THOUGHT = re.compile(r"<(think|thinking|thought|reasoning|scratchpad)>(.*?)</\1>", re.DOTALL | re.IGNORECASE)
_RESULT = re.compile(r"^#### *[^\s#][^\n]{0,60}\s*\Z", re.MULTILINE)  # as GSM8K ends; elsewhere it is a heading
_BOXED = re.compile(r"\\boxed\{")  # as MATH ends
_ANNOUNCED = re.compile(
    r"\b(?:let'?s|let us|let me|i'?ll|i will|we can|we'?ll|here'?s how (?:we|i)|solving (?:this|it))\b"
    r"[^.\n]{0,60}\bstep[ -]by[ -]step\b|\blet'?s think\b|\bchain of thought\b",
    re.IGNORECASE,
)
_CONCLUDED = re.compile(
    r"\b(?:so|therefore|thus|hence)\b,? ?(?:the|my|our)? ?(?:final |correct |right )?answer (?:is|must be|should be)\b"
    r"|(?:^|[.\n] *)the (?:final |correct )?answer (?:is|must be)\b",
    re.IGNORECASE,
)


def is_worked(conversation: Conversation) -> bool:
    """Whether an answer of the conversation comes with the reasoning that leads to it.

    Recognised are a message's `reasoning`, thoughts between tags (`<think>`), and at least LEAST_WORDS words of working
    before `#### result`, a `\\boxed{result}` or "so the answer is ...", or after "let's think step by step".
    """
    return any(message.role == "assistant" and _is_worked(message) for message in conversation.messages)


def _is_worked(message: Message) -> bool:
    text = message.content
    if message.reasoning and message.reasoning.strip():
        return True
    if "<" in text and any(thought.group(2).strip() for thought in _THOUGHT.finditer(text)):
        return True
    announced = _ANNOUNCED.search(text)
    if announced and _is_working(text[announced.end() :]):
        return True
    ends = (pattern.search(text) for pattern in (_RESULT, _BOXED, _CONCLUDED))
    return any(_is_working(text[: end.start()]) for end in ends if end)


def _is_working(text: str) -> bool:
    return len(text.split(None, LEAST_WORDS)) >= LEAST_WORDS
