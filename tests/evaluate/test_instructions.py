"""Verifiable instructions: responses made to follow them, responses made to break them, items from files, the rates."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tunesmith.base.errors import DataError
from tunesmith.evaluate.answers import Answer
from tunesmith.evaluate.builtin_instructions import _ASK, PER_INSTRUCTION, builtin_instructions
from tunesmith.evaluate.instructions import (
    InstructionItem,
    answer_instructions,
    instruction_rates,
    loosened,
    read_instructions,
    verify,
)
from tunesmith.evaluate.verifiable import CHECKS, follows, sentences

TEXTS = {
    "de": "Der Fischer fährt am frühen Morgen hinaus auf das Meer und kommt erst am späten Abend zurück nach Hause.",
    "es": "El pescador sale al mar muy temprano por la mañana y no vuelve a su casa hasta muy tarde por la noche.",
    "fr": "Le pêcheur part en mer très tôt le matin et ne rentre chez lui que tard dans la soirée avec ses poissons.",
    "it": "Il pescatore esce in mare la mattina molto presto e torna a casa soltanto la sera tardi con il suo pesce.",
    "pt": "O pescador sai para o mar de manhã muito cedo e não volta para a sua casa antes do fim da noite.",
    "ru": "Рыбак выходит в море рано утром и возвращается домой только поздно вечером со своей рыбой.",
}


def witness(item: InstructionItem) -> str:
    """A response that follows every instruction of a built-in item, put together piece by piece."""
    given = dict(zip(item.instructions, item.arguments, strict=True))
    if "language:response_language" in given:
        return TEXTS[given["language:response_language"]["language"]]
    if "combination:repeat_prompt" in given:
        return given["combination:repeat_prompt"]["prompt_to_repeat"] + "\nThe fence leans."
    alone = {
        "detectable_format:json_format": '```json\n{"fish": ["cod", "eel"]}\n```',
        "detectable_format:constrained_response": "My answer is maybe.",
        "combination:two_responses": "One answer.\n******\nAnother one.",
    }
    for name, text in alone.items():
        if name in given:
            return text
    return closed(given, cased(given, body(given) + words_and_marks(given)))


def body(given: dict[str, Any]) -> str:
    """The paragraphs: the sentence holds no comma, no rare letter, no avoided word and no capital word."""
    filler = "The old boat came back late and all the men had cod to sell."
    if arguments := given.get("length_constraints:number_words"):
        return filler * 2 if arguments["relation"] == "less than" else " ".join([filler] * 12)
    if arguments := given.get("length_constraints:number_sentences"):
        count = 1 if arguments["relation"] == "less than" else arguments["num_sentences"]
        return " ".join([filler] * count)
    if arguments := given.get("length_constraints:number_paragraphs"):
        return "\n***\n".join([filler] * arguments["num_paragraphs"])
    if arguments := given.get("length_constraints:nth_paragraph_first_word"):
        parts = [filler] * arguments["num_paragraphs"]
        parts[arguments["nth_paragraph"] - 1] = f"{arguments['first_word'].title()}! {filler}"
        return "\n\n".join(parts)
    return filler


def words_and_marks(given: dict[str, Any]) -> str:
    """What keywords, placeholders and format ask for, without another sentence or paragraph."""
    out = ""
    if arguments := given.get("keywords:existence"):
        out += " " + " ".join(arguments["keywords"])
    if arguments := given.get("keywords:frequency"):
        out += f" {arguments['keyword']}" * arguments["frequency"]
    if (arguments := given.get("keywords:letter_frequency")) and arguments["let_relation"] == "at least":
        out += " " + arguments["letter"] * arguments["let_frequency"]
    if arguments := given.get("detectable_content:number_placeholders"):
        out += " [name]" * arguments["num_placeholders"]
    if arguments := given.get("detectable_format:number_bullet_lists"):
        out += "\n* one" * arguments["num_bullets"]
    if arguments := given.get("detectable_format:number_highlighted_sections"):
        out += " *much*" * arguments["num_highlights"]
    if arguments := given.get("detectable_format:multiple_sections"):
        out += "".join(f"\n{arguments['section_spliter']} {n + 1}" for n in range(arguments["num_sections"]))
    if "detectable_format:title" in given:
        out += "\n<<Fish>>"
    if (arguments := given.get("change_case:capital_word_frequency")) and arguments["capital_relation"] == "at least":
        out += " ALL" * arguments["capital_frequency"]
    return out


def cased(given: dict[str, Any], text: str) -> str:
    if "change_case:english_capital" in given:
        return text.upper()
    return text.lower() if "change_case:english_lowercase" in given else text


def closed(given: dict[str, Any], text: str) -> str:
    if "startend:quotation" in given:
        return f'"{text}"'
    if arguments := given.get("startend:end_checker"):
        return cased(given, text + " " + arguments["end_phrase"])
    if arguments := given.get("detectable_content:postscript"):
        return cased(given, text + "\n" + arguments["postscript_marker"] + " More")
    return text


ITEMS = builtin_instructions()


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: item.key)
def test_every_builtin_item_can_be_followed(item: InstructionItem) -> None:
    response = witness(item)
    verdict = verify(item, response)
    assert all(verdict.strict) and all(verdict.loose), (item.described, response)
    assert not any(verify(item, " \n").loose)


def test_the_builtin_suite_covers_every_instruction_and_never_changes() -> None:
    assert len({item.prompt for item in ITEMS}) == len(ITEMS) == PER_INSTRUCTION * len(CHECKS) >= 60
    assert builtin_instructions() == ITEMS and set(_ASK) == set(CHECKS)
    counts = Counter(name for item in ITEMS for name in item.instructions)
    assert set(counts) == set(CHECKS) and min(counts.values()) >= PER_INSTRUCTION
    assert max(len(item.instructions) for item in ITEMS) == 3


@pytest.mark.parametrize(
    ("name", "arguments", "follows_it", "breaks_it"),
    [
        ("keywords:existence", {"keywords": ["fish", "sea"]}, "Fishes of the SEA", "fish only"),
        ("keywords:existence", {"keywords": ["c++ (11)"]}, "in C++ (11)", "in c"),
        ("keywords:frequency", {"keyword": "a", "frequency": 2, "relation": "less than"}, "A b", "a A"),
        ("keywords:forbidden_words", {"forbidden_words": ["cat"]}, "concatenate", "The Cat!"),
        ("keywords:letter_frequency", {"letter": "Q", "let_frequency": 2, "let_relation": "at least"}, "Qq", "q"),
        ("length_constraints:number_words", {"num_words": 3, "relation": "at least"}, "a b c", "a, b"),
        ("length_constraints:number_sentences", {"num_sentences": 2, "relation": "less than"}, "One.", "One. Two."),
        ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "a\n***\nb", "a\n***\n \n***\nb"),
        ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "***\na\n***\nb\n***", "a"),
        (
            "length_constraints:nth_paragraph_first_word",
            {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Now"},
            "a\n\n'now, b",
            "now\n\nthen",
        ),
        ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[a] [b c]", "[a"),
        ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, "x\np. p. s. y", "x\nP.S. y"),
        ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* a\n - b", "* a\n* b\n* c"),
        ("detectable_format:constrained_response", {}, " My answer is no. ", "no"),
        ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "*a* and *b*", "*a* and **"),
        ("detectable_format:multiple_sections", {"section_spliter": "A", "num_sections": 2}, "A 1\nA 2", "A 1"),
        ("detectable_format:json_format", {}, '```json\n{"a": [1]}\n```', "{'a': 1}"),
        ("detectable_format:title", {}, "<<T>> x", "<< >> x"),
        ("combination:two_responses", {}, "a ****** b", "a ****** a"),
        ("combination:repeat_prompt", {"prompt_to_repeat": "Do it."}, "DO IT. Done.", "Done. Do it."),
        ("startend:end_checker", {"end_phrase": "The End"}, 'x "the end"', "the end x"),
        ("startend:quotation", {}, ' "a" ', '"a'),
        (
            "change_case:capital_word_frequency",
            {"capital_frequency": 2, "capital_relation": "at least"},
            "AA B-C",
            "AA b",
        ),
        ("change_case:english_capital", {}, "THE CAT, 3 DOGS.", "THE Cat"),
        ("change_case:english_lowercase", {}, "the cat.", "the Cat"),
        ("punctuation:no_comma", {}, "a; b", "a, b"),
        ("language:response_language", {"language": "de"}, TEXTS["de"], TEXTS["fr"]),
    ],
)  # fmt: skip
def test_checks(name: str, arguments: dict[str, Any], follows_it: str, breaks_it: str) -> None:
    assert follows(name, arguments, follows_it) and not follows(name, arguments, breaks_it)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("One. Two! Three? Four", 4),
        ("Mr. Smith paid 3.50 to Dr. J. Doe. He left.", 2),
        ("Wait... what?! \"Yes.\" She said so (twice.) Then no.", 5),
        ("1. First.\n2. Second.", 2),
        ("今日は。明日も！", 2),
        ("- - -", 0),
    ],
)  # fmt: skip
def test_sentences(text: str, count: int) -> None:
    assert sentences(text) == count


def test_loose_forgives_a_first_line_a_last_line_and_stars() -> None:
    item = InstructionItem("1", "p", ("startend:quotation", "punctuation:no_comma"), ({}, {}))
    response = 'Sure, here it is:\n**"No comma."**'
    assert verify(item, response).strict == (False, False) and verify(item, response).loose == (True, True)
    assert len(loosened("a\nb\nc")) == 8 and set(loosened("a\n*b*\nc")) >= {"*b*", "b", "a\n*b*", "b\nc"}


def test_items_are_read_in_ifevals_shape(tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    good = {
        "key": 7,
        "prompt": "Fish. No commas.",
        "instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words"],
        "kwargs": [{"num_words": None}, {"num_words": 3, "relation": "at least", "letter": None}],
    }
    path.write_text(json.dumps(good) + "\n")
    (item,) = read_instructions("fish", str(path))
    assert item.key == "7" and item.arguments == ({}, {"num_words": 3, "relation": "at least"})
    for change, message in [
        ({"instruction_id_list": ["punctuation:no_commas", "x"]}, "there is no instruction 'punctuation:no_commas'"),
        ({"kwargs": [{}, {}]}, "lacks its argument 'num_words'"),
        ({"kwargs": [{}]}, "no prompt with instructions"),
        ({"kwargs": [{}, {"num_words": 3, "relation": "about"}]}, "'about' of an instruction is neither"),
        ({"prompt": ""}, "item 2: no prompt"),
    ]:
        path.write_text(json.dumps(good) + "\n" + json.dumps(good | change) + "\n")
        with pytest.raises(DataError, match=message):
            read_instructions("fish", str(path))


def test_items_without_a_key_and_of_several_files_are_different_items(tmp_path: Path) -> None:
    one = {"prompt": "Fish.", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
    for name in "ab":
        rows = [one | {"key": None}, one | {"key": 7}]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    keys = [item.key for item in read_instructions("fish", str(tmp_path))]
    assert keys == ["fish:a.jsonl:1", "a.jsonl:7", "fish:b.jsonl:1", "b.jsonl:7"]


def test_rates_by_prompt_and_by_instruction() -> None:
    items = [
        InstructionItem("1", "p", ("punctuation:no_comma", "startend:quotation"), ({}, {})),
        InstructionItem("2", "q", ("punctuation:no_comma",), ({},)),
    ]

    def said(*texts: str) -> list[Answer]:
        return [
            Answer(item.key, item.key, "s", "", "", "", item.prompt, "", text, 0.0, True, 1)
            for item, text in zip(items, texts, strict=True)
        ]

    found = instruction_rates(items, {"base_chat": said("a, b", "a, b"), "tuned": said('Here:\n"a"', "b")}, 0)
    rates = found["rates"]
    assert {name: rate["tuned"]["mean"] for name, rate in rates.items()} == {
        "prompt_strict": 0.5,
        "prompt_loose": 1,
        "instruction_strict": pytest.approx(2 / 3),
        "instruction_loose": 1,
    }
    assert rates["instruction_strict"]["n"] == 3 and rates["prompt_strict"]["base"]["chat"]["mean"] == 0
    assert rates["prompt_strict"]["difference"]["mean"] == 0.5
    assert found["instructions"]["punctuation:no_comma"] == {"n": 2, "base_chat": 0, "tuned": 1}


def test_a_model_is_asked_and_scored(model: Any, tokenizer: Any) -> None:
    items = [InstructionItem("1", "Say it.", ("punctuation:no_comma",), ({},))] * 2
    for style in ("chat", "plain"):
        once = answer_instructions(model, tokenizer, items, suite="s", style=style, max_new_tokens=8)
        assert once == answer_instructions(model, tokenizer, items, suite="s", style=style, max_new_tokens=8)
        assert [a.score for a in once] == [float(bool(a.response.strip()) and "," not in a.response) for a in once]
        assert once[0].expected == "punctuation:no_comma" and once[0].level == "s"
