import pytest

from tunesmith.data.relatives import flan_pairs, relatives_of


@pytest.mark.parametrize(
    "held, left_out",
    [
        ("Paraphrase", {"entailment"}),
        ("entailment", {"Paraphrase"}),
        ("reading comprehension", {"Read. comp. with commonsense"}),
        ("commonsense", {"Read. comp. with commonsense"}),
        ("Read. comp. with commonsense", {"reading comprehension", "commonsense"}),
        ("summary", set()),
    ],
)
def test_the_rules_of_flan(held, left_out):
    present = {"Paraphrase", "entailment", "reading comprehension", "commonsense", "summary"}
    present |= {"Read. comp. with commonsense"}
    assert {other for _, other in flan_pairs([held], present)} == left_out
    assert relatives_of([held], present, "flan") == dict.fromkeys(left_out, held)


def test_what_is_held_out_itself_is_measured():
    assert relatives_of(["nli", "paraphrase"], {"nli", "paraphrase", "x"}, "flan") == {}
    assert relatives_of(["a", "b"], {"a", "b", "c"}, {"a": ["b", "c"], "b": ["c"]}) == {"c": "a"}
