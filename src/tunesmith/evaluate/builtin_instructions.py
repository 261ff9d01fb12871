"""The built-in suite of verifiable instructions: writing tasks, each with one to three instructions that fit together.

Every instruction that can be verified is asked for in `PER_INSTRUCTION` prompts at least; prompts are the same on every
machine. IFEval's own prompts (541) are a file to bring along.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from typing import Any

from tunesmith.base.random import python_stream
from tunesmith.evaluate.instructions import InstructionItem
from tunesmith.evaluate.verifiable import AT_LEAST, CHECKS, CHOICES, LESS_THAN

PER_INSTRUCTION = 4

Asked = tuple[str, dict[str, Any]]
"""The sentence that asks, and the arguments that verify."""

TASKS = (
    "Write a short letter to a neighbour about a fence that leans into your garden.",
    "Explain to a ten-year-old why the sea is salty.",
    "Describe a morning at a fish market.",
    "Write an announcement for a library that will be closed for repairs.",
    "Give advice to someone who starts a new job on Monday.",
    "Describe how to repair a flat bicycle tyre.",
    "Write a short story about a lighthouse keeper who finds a bottle.",
    "Compare travelling by train with travelling by car.",
    "Write a review of an umbrella that broke in the first storm.",
    "Explain what a budget is good for.",
    "Write a diary entry of a cat that was left alone for a day.",
    "Describe the steps of baking bread.",
    "Write a welcome message for the new members of a chess club.",
    "Explain how a thermometer works.",
    "Write a speech for the opening of a small museum.",
    "Describe the street where you would like to live.",
    "Write a message to a friend who missed the last train.",
    "Explain why people keep bees.",
    "Suggest how a school could use less paper.",
    "Describe an invention that the world could do without.",
    "Write a job advertisement for a gardener.",
    "Explain how to prepare for a long hike.",
    "Write about a river through the four seasons.",
    "Describe a meal that brings back memories.",
    "Write an apology from a bakery that delivered the wrong cake.",
    "Explain the rules of a simple card game.",
    "Write a product description of a wooden chair.",
    "Describe what can be seen from a hot-air balloon.",
    "Write a short talk about sleeping well.",
    "Explain why bridges have gaps in them.",
)
QUESTIONS = (
    "Is a tomato a fruit?",
    "Can a ship sail faster than the wind?",
    "Is it ever right to break a promise?",
    "Will people live on the moon within twenty years?",
    "Is cold water better than warm water for making ice quickly?",
    "Should a town plant fruit trees along its streets?",
)
LANGUAGES = {"de": "German", "es": "Spanish", "fr": "French", "it": "Italian", "pt": "Portuguese", "ru": "Russian"}
KEYWORDS = "morning water light garden letter music window paper winter quiet market bridge".split()
AVOIDED = "very really always people never great".split()
FIRST_WORDS = "today perhaps nobody once every".split()
SECTIONS = ("Section", "Part", "Chapter")
ENDINGS = ("That is all for now.", "What would you do?", "I hope this helps you.")
LETTERS = "bdgkpvw"
RARE_LETTERS = "jqxz"

# Instructions of one family contradict each other, or would count each other's marks.
_FAMILIES = (
    ("length_constraints:",),
    ("keywords:",),
    ("detectable_format:", "change_case:"),
    ("startend:", "detectable_content:postscript"),
    ("detectable_content:number_placeholders",),
    ("punctuation:",),
)
# These decide the whole form of a response, so they are asked for alone.
_ALONE = {
    "combination:two_responses",
    "combination:repeat_prompt",
    "detectable_format:json_format",
    "detectable_format:constrained_response",
    "language:response_language",
}


def builtin_instructions() -> list[InstructionItem]:
    """The prompts of the suite, `PER_INSTRUCTION` that start from each instruction."""
    items: list[InstructionItem] = []
    for name in CHECKS:
        for count in range(PER_INSTRUCTION):
            draw = python_stream(0, "instructions", name, count)
            names = [name] if name in _ALONE else _together(name, draw.randint(1, 3), draw)
            tasks = QUESTIONS if name == "detectable_format:constrained_response" else TASKS
            items.append(_item(f"{name}:{count + 1}", tasks[len(items) % len(tasks)], names, draw))
    return items


def _together(name: str, size: int, draw: Random) -> list[str]:
    """`size` instructions of different families, `name` first."""
    names = [name]
    others = [other for other in CHECKS if other not in _ALONE]
    while len(names) < size:
        taken = {_family(chosen) for chosen in names}
        names.append(draw.choice([other for other in others if _family(other) not in taken]))
    return names


def _family(name: str) -> int:
    return next(place for place, starts in enumerate(_FAMILIES) if name.startswith(starts))


def _item(key: str, task: str, names: list[str], draw: Random) -> InstructionItem:
    asked = [_ASK[name](draw, task) for name in names]
    prompt = " ".join([task, *(sentence for sentence, _ in asked)])
    return InstructionItem(key, prompt, tuple(names), tuple(arguments for _, arguments in asked))


def _related(draw: Random, least: int, most: int, step: int = 1) -> tuple[str, int, str]:
    """A relation, a number, and how both are said."""
    relation, count = draw.choice([AT_LEAST, LESS_THAN]), draw.randrange(least, most + 1, step)
    return relation, count, f"{'at least' if relation == AT_LEAST else 'fewer than'} {count}"


def _existence(draw: Random, task: str) -> Asked:
    words = draw.sample(KEYWORDS, 2)
    return f"Use the words {words[0]} and {words[1]}.", {"keywords": words}


def _frequency(draw: Random, task: str) -> Asked:
    word, count = draw.choice(KEYWORDS), draw.randint(2, 4)
    return f"The word {word} should appear at least {count} times.", _args(
        keyword=word, frequency=count, relation=AT_LEAST
    )


def _forbidden(draw: Random, task: str) -> Asked:
    words = draw.sample(AVOIDED, 3)
    return f"Do not use the words {words[0]}, {words[1]} or {words[2]}.", {"forbidden_words": words}


def _letters(draw: Random, task: str) -> Asked:
    relation = draw.choice([AT_LEAST, LESS_THAN])
    letter = draw.choice(LETTERS if relation == AT_LEAST else RARE_LETTERS)
    count = draw.randint(4, 8) if relation == AT_LEAST else draw.randint(1, 3)
    said = f"at least {count} times" if relation == AT_LEAST else f"fewer than {count} times"
    sentence = f"The letter {letter} should appear {said}."
    return sentence, _args(letter=letter, let_frequency=count, let_relation=relation)


def _language(draw: Random, task: str) -> Asked:
    code = draw.choice(list(LANGUAGES))
    return f"Answer in {LANGUAGES[code]} only; no other language is allowed.", {"language": code}


def _sentences(draw: Random, task: str) -> Asked:
    relation, count, said = _related(draw, 4, 9)
    return f"Your answer should have {said} sentences.", _args(num_sentences=count, relation=relation)


def _paragraphs(draw: Random, task: str) -> Asked:
    count = draw.randint(2, 5)
    sentence = f"Write exactly {count} paragraphs and separate them with a line of three stars: ***"
    return sentence, {"num_paragraphs": count}


def _words(draw: Random, task: str) -> Asked:
    relation, count, said = _related(draw, 40, 120, 10)
    return f"Answer with {said} words.", _args(num_words=count, relation=relation)


def _first_word(draw: Random, task: str) -> Asked:
    count = draw.randint(2, 4)
    place, word = draw.randint(1, count), draw.choice(FIRST_WORDS)
    sentence = (
        f"Write {count} paragraphs with a blank line between them; paragraph {place} must start with the word {word}."
    )
    return sentence, _args(num_paragraphs=count, nth_paragraph=place, first_word=word)


def _placeholders(draw: Random, task: str) -> Asked:
    count = draw.randint(2, 4)
    sentence = f"Leave at least {count} placeholders in square brackets to be filled in, such as [name]."
    return sentence, {"num_placeholders": count}


def _postscript(draw: Random, task: str) -> Asked:
    marker = draw.choice(["P.S.", "P.P.S"])
    return f"Add a postscript at the end that starts with {marker}", {"postscript_marker": marker}


def _bullets(draw: Random, task: str) -> Asked:
    count = draw.randint(3, 6)
    sentence = f"Include exactly {count} bullet points, each on a line of its own that starts with a star and a space."
    return sentence, {"num_bullets": count}


def _choice(draw: Random, task: str) -> Asked:
    return f"Answer with one of these: {' '.join(CHOICES)}", {}


def _highlights(draw: Random, task: str) -> Asked:
    count = draw.randint(2, 4)
    sentence = f"Highlight at least {count} parts of your answer in Markdown, as in *highlighted part*."
    return sentence, {"num_highlights": count}


def _sections(draw: Random, task: str) -> Asked:
    count, word = draw.randint(2, 4), draw.choice(SECTIONS)
    sentence = f"Divide your answer into {count} sections, and start each with {word} and its number, as in {word} 1."
    return sentence, _args(section_spliter=word, num_sections=count)


def _json(draw: Random, task: str) -> Asked:
    return "Your whole answer must be valid JSON and nothing else.", {}


def _title(draw: Random, task: str) -> Asked:
    return "Give your answer a title in double angle brackets, such as <<a title>>.", {}


def _two(draw: Random, task: str) -> Asked:
    return "Give two different answers, and between them nothing but six stars: ******", {}


def _repeat(draw: Random, task: str) -> Asked:
    sentence = "First repeat the sentence before this one word for word, then answer; say nothing before you repeat it."
    return sentence, {"prompt_to_repeat": task}


def _end(draw: Random, task: str) -> Asked:
    phrase = draw.choice(ENDINGS)
    return f'End with this sentence and with nothing after it: "{phrase}"', {"end_phrase": phrase}


def _quotation(draw: Random, task: str) -> Asked:
    return "Put your whole answer in double quotation marks.", {}


def _capital_words(draw: Random, task: str) -> Asked:
    relation, count, said = _related(draw, 3, 6)
    return f"Have {said} words in capital letters.", _args(capital_frequency=count, capital_relation=relation)


def _capitals(draw: Random, task: str) -> Asked:
    return "Answer in English and in capital letters only.", {}


def _lowercase(draw: Random, task: str) -> Asked:
    return "Answer in English and in lower-case letters only, without a single capital.", {}


def _no_comma(draw: Random, task: str) -> Asked:
    return "Do not use any commas.", {}


def _args(**arguments: Any) -> dict[str, Any]:
    return arguments


_ASK: Mapping[str, Callable[[Random, str], Asked]] = {
    "keywords:existence": _existence,
    "keywords:frequency": _frequency,
    "keywords:forbidden_words": _forbidden,
    "keywords:letter_frequency": _letters,
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
    "combination:two_responses": _two,
    "combination:repeat_prompt": _repeat,
    "startend:end_checker": _end,
    "startend:quotation": _quotation,
    "change_case:capital_word_frequency": _capital_words,
    "change_case:english_capital": _capitals,
    "change_case:english_lowercase": _lowercase,
    "punctuation:no_comma": _no_comma,
}
