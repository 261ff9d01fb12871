"""What is measured of rows against brute force, and that it does not depend on how much there is."""

import random
import re
from collections import Counter

import pytest

from tunesmith.base.conversation import Conversation, Message
from tunesmith.data.coverage.category import CATEGORIES, category_of
from tunesmith.data.coverage.coverage import PAIRS, VOCABULARY_WORDS, WORDS_A_ROW, measure, shape_of
from tunesmith.data.coverage.verbs import verb_object
from tunesmith.data.coverage.worked import is_worked
from tunesmith.pocket import tasks

WORDS = [f"w{number}" for number in range(3_000)]


def row(number: int, asked: str, answer: str, cluster: str = "", turns: int = 1, **more: object) -> Conversation:
    said = (Message("user", asked), Message("assistant", answer)) * turns
    return Conversation(f"a:{number}", said, source="a", cluster=cluster, **more)


def made(count: int, seed: int = 0) -> list[Conversation]:
    chance = random.Random(seed)
    verbs = ("Write", "List", "Describe", "What is", "Compute", "Translate into German:")
    return [
        row(
            number,
            f"{chance.choice(verbs)} the {' '.join(chance.choices(WORDS, k=chance.randrange(1, 60)))}",
            " ".join(chance.choices(WORDS, k=chance.randrange(1, 80))),
            cluster=chance.choice(("one", "two", "math")),
            turns=1 + (chance.random() < 0.2),
        )
        for number in range(count)
    ]


def test_shares_and_counts_are_those_of_counting_one_by_one():
    rows = [*made(1_200), *tasks.conversations(1, 300, "pocket")]
    found = measure(rows, sample=10_000)
    assert (found["rows"], found["sampled"]) == (len(rows), len(rows))
    kinds = Counter(category_of(each).category for each in rows)
    assert {each["category"]: each["rows"] for each in found["categories"]} == {
        name: kinds[name] for name in CATEGORIES
    }
    assert found["multi_turn"] == sum(len([m for m in r.messages if m.role == "user"]) > 1 for r in rows) / len(rows)
    assert found["worked"] == sum(map(is_worked, rows)) / len(rows)
    assert found["shapes"] == Counter(map(shape_of, rows))
    pairs = [verb_object(each.messages[0].content) for each in rows]
    assert found["verbs"]["share"] == sum(pair is not None for pair in pairs) / len(rows)
    assert sum(wording["rows"] for wording in found["wordings"]) == len(rows)
    for part, texts in (
        ("instruction", [" ".join(m.content for m in each.messages[:-1]) for each in rows]),
        ("response", [each.response for each in rows]),
    ):
        lengths = sorted(len(re.findall(r"\w+", text)) for text in texts)
        words = found["words"][part]
        assert words["quantiles"]["50"] == lengths[round((len(lengths) - 1) / 2)]
        for low, high, count in zip(words["edges"], words["edges"][1:], words["counts"], strict=False):
            assert count == sum(low <= length < high for length in lengths)
        assert sum(words["counts"]) == len(rows)


def test_a_sample_is_drawn_by_the_seed_and_tells_of_all_rows():
    rows = made(6_000)
    all_of_them, some = measure(rows, sample=10_000), measure(rows, sample=2_000, seed=3)
    assert some["rows"] == 6_000 and some["sampled"] == 2_000
    assert some == measure(rows, sample=2_000, seed=3, workers=2)
    assert some != measure(rows, sample=2_000, seed=4)
    assert some["multi_turn"] == pytest.approx(all_of_them["multi_turn"], abs=0.03)
    counts = {each["category"]: each["rows"] for each in all_of_them["categories"]}
    for each in some["categories"]:
        assert each["rows"] == pytest.approx(counts[each["category"]], abs=300)


def test_diversity_does_not_grow_with_the_rows():
    few, many = measure(made(2_000), sample=20_000), measure(made(8_000, seed=1), sample=20_000)
    for part in ("instruction", "response"):
        for share in ("distinct_1", "distinct_2"):
            assert many["vocabulary"][part][share] == pytest.approx(few["vocabulary"][part][share], abs=0.02)
    again = measure(made(2_000) * 3, sample=20_000)["vocabulary"]["response"]
    assert again["distinct_1"] == pytest.approx(few["vocabulary"]["response"]["distinct_1"], abs=0.02)


def test_distinct_words_are_counted_among_so_many():
    rows = [row(number, "Say.", " ".join(WORDS[:100])) for number in range(VOCABULARY_WORDS)]
    vocabulary = measure(rows, sample=VOCABULARY_WORDS)["vocabulary"]
    assert vocabulary["response"] == {
        "distinct_1": WORDS_A_ROW / VOCABULARY_WORDS,
        "distinct_2": pytest.approx((WORDS_A_ROW - 1) / VOCABULARY_WORDS, rel=0.05),
    }
    assert vocabulary["instruction"] == {"distinct_1": 1 / VOCABULARY_WORDS, "distinct_2": 1 / VOCABULARY_WORDS}


def test_too_little_text_is_not_measured():
    found = measure(made(20), sample=100)
    assert found["vocabulary"]["instruction"] is None and found["vocabulary"]["response"] is None
    assert found["verbs"]["distinct"] is None


def test_distinct_verbs_with_objects_are_counted_in_a_thousand():
    rows = [row(number, f"Write a {WORDS[number % 7]}x now.", "ok") for number in range(PAIRS + 500)]
    # Names of digits and letters are split where the digits begin, so all of these are of the noun "w".
    nouns = {verb_object(each.messages[0].content) for each in rows}
    assert measure(rows, sample=5_000)["verbs"]["distinct"] == len(nouns)


def test_near_duplicates_are_the_rows_beyond_the_first_of_each_group():
    rows = [each for each in made(300) if len(each.response.split()) > 30 and len(each.messages) == 2][:100]
    again = [row(1_000 + n, each.messages[0].content, each.response + " end") for n, each in enumerate(rows[:20])]
    assert measure([*rows, *again], sample=1_000)["near_duplicates"] == 20 / (len(rows) + 20)


def test_no_rows_and_empty_texts():
    assert measure([], sample=100)["sampled"] == 0
    found = measure([row(1, "", ""), Conversation("a:2", (Message("assistant", "Hi"),))], sample=100)
    assert found["sampled"] == 2


@pytest.mark.parametrize(
    ("response", "shape"),
    [
        ("yes", "a word or two"),
        ("", "a word or two"),
        ("The boat left at noon.", "a sentence"),
        ("The boat left. It was noon.", "a paragraph"),
        ("The boat left.\n\nIt was noon.", "several paragraphs"),
        ("Here:\n- one\n- two", "a list"),
        ("1. one\n2. two", "a list"),
        ("```\nx = 1\n```", "code"),
    ],
)
def test_shapes_of_responses(response, shape):
    assert shape_of(row(1, "Say.", response)) == shape
