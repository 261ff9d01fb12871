import random

import pytest

from tunesmith.data.sources.messages import Rejected
from tunesmith.data.sources.options import LETTERS, Options, as_key, have_one_order, shuffled, written
from tunesmith.data.sources.sandbox import compile_expression as e


def reason(options, row):
    with pytest.raises(Rejected) as fault:
        options.of(row)
    return fault.value.reason


def test_labels_name_the_words_of_a_file():
    options = Options(e("label"), {"0": "yes", "1": "no"})
    for label in (0, "0", 0.0, " 0 "):
        assert options.of({"label": label}) == (("yes", "no"), 0)
    assert Options(e("ok"), {"true": "yes", "false": "no"}).of({"ok": False}) == (("yes", "no"), 1)
    for label in (2, "yes", -1, "", 0.5):
        assert reason(options, {"label": label}) == "label_outside_options"


def test_own_options_are_read_by_word_number_or_letter():
    draw = random.Random(0)
    for _ in range(200):
        words = [str(word) for word in draw.sample(range(30), draw.randint(2, 8))]  # words that look like numbers
        right = draw.randrange(len(words))
        labels = {"word": words[right], "number": right, "letter": draw.choice(["{}", "({})", "{}."])}
        labels["letter"] = labels["letter"].format(LETTERS[right])
        for reading, label in labels.items():
            options = Options(e("label"), None, e("choices"), reading)
            assert options.of({"choices": words, "label": label}) == (tuple(words), right)


def test_own_options_that_are_none():
    options = Options(e("label"), None, e("choices"))
    for choices in (["x"], ["x", ""], ["x", "x"], "xy", ["x"] * 30):
        assert reason(options, {"choices": choices, "label": "x"}) == "bad_options"
    assert reason(options, {"choices": ["x", "y"], "label": "z"}) == "label_outside_options"
    by_number = Options(e("label"), None, e("choices"), "number")
    assert reason(by_number, {"choices": ["x", "y"], "label": 2}) == "label_outside_options"
    by_letter = Options(e("label"), None, e("choices"), "letter")
    assert reason(by_letter, {"choices": ["x", "y"], "label": "C"}) == "label_outside_options"
    assert reason(by_letter, {"choices": ["x", "y"], "label": "AB"}) == "label_outside_options"


def test_another_order_keeps_the_right_option_and_reaches_every_place():
    words = ("a1", "b2", "c3", "d4")
    places, orders = set(), set()
    for row in range(300):
        order, right = shuffled(words, 2, 0, f"r:{row}")
        assert sorted(order) == sorted(words) and order[right] == words[2]
        assert (order, right) == shuffled(words, 2, 0, f"r:{row}")
        places.add(right)
        orders.add(order)
    assert places == {0, 1, 2, 3} and len(orders) == 24
    assert any(shuffled(words, 2, 0, f"r:{row}") != shuffled(words, 2, 1, f"r:{row}") for row in range(9))


@pytest.mark.parametrize(
    ("words", "beside", "fixed"),
    [
        (["red", "blue"], [], False),
        (["yes", "no"], ["Some of the people ate an answer."], False),
        (["a", "b"], [], False),
        (["x", "y"], ["He chose A man."], False),
        (["red", "none of the above"], [], True),
        (["red", "all of these"], [], True),
        (["red", "Both"], [], True),
        (["A and B", "C"], [], True),
        (["red", "(a), (b)"], [], True),
        (["red", "the latter"], [], True),
        (["cat", "dog"], ["So (B) is right."], True),
        (["cat", "dog"], ["Option B is wrong."], True),
        (["cat", "dog"], ["Which? A. cat B. dog"], True),
        (["cat", "dog"], ["The first option is silly."], True),
    ],
)
def test_options_that_speak_of_each_other_have_one_order(words, beside, fixed):
    assert have_one_order(words, beside) is fixed


def test_lists_as_prompts_show_them():
    assert written(["yes", "maybe", "no"], "bullets") == "- yes\n- maybe\n- no"
    assert written(["yes", "maybe", "no"], "letters") == "A. yes\nB. maybe\nC. no"
    assert written(["yes", "maybe", "no"], "words") == "yes, maybe or no"
    assert written(["yes", "no"], "words") == "yes or no"


def test_whole_numbers_are_one_key_however_a_table_holds_them():
    assert as_key(1.0) == as_key(1) == as_key("1") == "1" and as_key(1.5) == "1.5" and as_key(True) == "true"
