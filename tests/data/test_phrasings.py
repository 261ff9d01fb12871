import json
from collections import Counter

import pytest

from tunesmith.base.errors import DataError
from tunesmith.data.sources import phrasings as module
from tunesmith.data.sources.messages import Rejected
from tunesmith.data.sources.options import Options
from tunesmith.data.sources.phrasings import Drawing, Phrasings, PromptTemplate, TemplateFile
from tunesmith.data.sources.read import read_source
from tunesmith.data.sources.sandbox import compile_expression, compile_text


def template(name, prompt="{{q}}", response="{{a}}", *, when=None, reasoning=None, **more):
    return PromptTemplate(
        name,
        compile_text(prompt),
        compile_text(response),
        when=compile_expression(when) if when else None,
        reasoning=compile_text(reasoning) if reasoning else None,
        **more,
    )


def phrasings(*templates, options=None, optional=(), **drawing):
    return Phrasings(TemplateFile("f.yaml", "t", templates, "c", options, frozenset(optional)), Drawing(**drawing))


def many(count, **more):
    return [template(f"p{number}", f"{number}: {{{{q}}}}", **more) for number in range(count)]


def drawn(made, row, id):
    return [draft.labels["phrasing"] for draft in made.render(row, id)]


ROW = {"q": "why", "a": "because"}
IDS = [f"s:{number}" for number in range(2000)]


def test_each_template_is_as_likely_and_the_draw_is_the_seeds():
    made, other = phrasings(*many(4)), phrasings(*many(4), seed=1)
    first = [drawn(made, ROW, id)[0] for id in IDS]
    counts = Counter(first)
    assert set(counts) == {"p0", "p1", "p2", "p3"} and all(400 < count < 600 for count in counts.values())
    assert first == [drawn(phrasings(*many(4)), ROW, id)[0] for id in IDS]
    assert sum(a != drawn(other, ROW, id)[0] for a, id in zip(first, IDS, strict=True)) > 1300


def test_a_template_that_is_added_moves_only_rows_that_draw_it():
    before, after = phrasings(*many(4)), phrasings(*many(5))
    moved = [(drawn(before, ROW, id)[0], drawn(after, ROW, id)[0]) for id in IDS]
    assert {new for old, new in moved if old != new} == {"p4"}


def test_several_of_a_row_differ_and_all_takes_all_that_fit():
    assert all(len(set(drawn(phrasings(*many(4), per_row=3), ROW, id))) == 3 for id in IDS[:100])
    assert drawn(phrasings(*many(4), per_row=9), ROW, "s:1") != []
    assert len(drawn(phrasings(*many(4), per_row=9), ROW, "s:1")) == 4
    assert drawn(phrasings(*many(4), per_row=None), ROW, "s:1") == ["p0", "p1", "p2", "p3"]


@pytest.mark.parametrize("per_row", [1, 2])
def test_shares_of_kinds_hold(per_row):
    kinds = [
        *many(3),
        template("turned", "{{a}}", "{{q}}", kind="inverted"),
        template("steps", "!{{q}}", kind="worked"),
    ]
    made = phrasings(*kinds, per_row=per_row, shares={"inverted": 0.1, "worked": 0.3})
    first = Counter(drawn(made, ROW, id)[0] for id in IDS)
    assert abs(first["turned"] / 2000 - 0.1) < 0.03 and abs(first["steps"] / 2000 - 0.3) < 0.04
    assert min(first[f"p{number}"] for number in range(3)) > 300
    assert all(len(set(drawn(made, ROW, id))) == per_row for id in IDS[:200])


def test_a_row_that_fits_no_template_of_the_drawn_kind_takes_another():
    made = phrasings(*many(2), template("steps", "{{q}}", "{{r}} {{a}}", kind="worked"), shares={"worked": 1.0})
    assert drawn(made, ROW | {"r": "so"}, "s:1") == ["steps"]
    assert drawn(made, ROW, "s:1")[0] in ("p0", "p1")


def test_templates_are_for_rows_that_fill_their_columns_and_when_holds():
    made = phrasings(
        template("with", "{{q}} {{x}}", when="x"), template("without", "{{q}}", when="not x"), per_row=None
    )
    assert drawn(made, ROW | {"x": "y"}, "s:1") == ["with"]
    for empty in ({}, {"x": ""}, {"x": None}, {"x": float("nan")}):
        assert drawn(made, ROW | empty, "s:1") == ["without"]
    assert drawn(phrasings(template("zero", "{{q}} {{x}}")), ROW | {"x": 0}, "s:1") == ["zero"]
    with pytest.raises(Rejected) as fault:
        made.render({"q": "", "a": "b"}, "s:1")
    assert fault.value.reason == "missing_column" and "q" in fault.value.detail
    with pytest.raises(Rejected) as fault:
        phrasings(template("one", when="a == 'x'")).render(ROW, "s:1")
    assert fault.value.reason == "no_template_fits"


def test_optional_columns_are_empty_to_templates():
    made = phrasings(template("p", "{{q}}{% if x %} ({{x}}){% endif %}"), optional=["x"])
    assert made.render(ROW, "s:1")[0].messages[0].content == "why"
    assert made.render(ROW | {"x": "y"}, "s:1")[0].messages[0].content == "why (y)"


@pytest.mark.parametrize(
    ("one", "row", "reason"),
    [
        (template("p", "{{q}}", "{{a|trim}}"), {"q": "x", "a": " "}, "empty_response"),
        (template("p", "{% if q == 'y' %}{{q}}{% endif %}"), {"q": "x", "a": "b"}, "no_instruction"),
        (template("p", "{{q.split('|')[1]}}"), {"q": "x", "a": "b"}, "template_failed"),
        (template("p", "{{q + 1}}"), {"q": "x", "a": "b"}, "template_failed"),
        (template("p", "{{q}}"), {"q": ["x"], "a": "b"}, "not_text"),
    ],
)
def test_what_a_template_can_not_say_of_a_row_is_told_with_its_name(one, row, reason):
    (fault,) = phrasings(one).render(row, "s:1")
    assert isinstance(fault, Rejected) and fault.reason == reason and fault.detail.startswith("template p: ")


def test_the_same_words_twice_are_one_row():
    made = phrasings(template("p"), template("q", "{{q}}  "), per_row=None)
    first, second = made.render(ROW, "s:1")
    assert first.labels["phrasing"] == "p" and second.reason == "same_words"


def test_a_template_that_takes_too_long_ends_the_reading(monkeypatch):
    monkeypatch.setattr(module, "SECONDS_TO_RENDER", 0.2)
    loops = "{% for a in q %}{% for b in q %}{% for c in q %}{% endfor %}{% endfor %}{% endfor %}{{q}}"
    with pytest.raises(DataError, match=r"template slow of f\.yaml did not put row s:1 into words within"):
        phrasings(template("slow", loops)).render({"q": "x" * 5000, "a": "b"}, "s:1")


def test_reasoning_goes_where_models_think():
    made = phrasings(template("p", "{{q}}", "{{a}}", reasoning="{{r}}", kind="worked"))
    (draft,) = made.render(ROW | {"r": "hm"}, "s:1")
    assert draft.messages[1].reasoning == "hm" and draft.messages[1].content == "because"


LISTED = template("p", "{{q}}\n{{options}}", "{{letter}}. {{option}}", layouts=("letters",))
OWN = Options(compile_expression("key"), None, compile_expression("choices"), "number")


def test_letters_follow_options_in_another_order():
    made = phrasings(LISTED, options=OWN, shuffle=True)
    orders = set()
    for id in IDS[:300]:
        (draft,) = made.render({"q": "which", "choices": ["xx", "yy", "zz"], "key": 1}, id)
        asked, answer = draft.messages[0].content, draft.messages[1].content
        assert answer.endswith(". yy") and answer in asked.split("\n")
        assert bool(draft.changes) == (asked != "which\nA. xx\nB. yy\nC. zz")
        orders.add(asked)
    assert len(orders) == 6


def test_options_that_speak_of_each_other_stay_as_they_are_listed():
    made = phrasings(LISTED, options=OWN, shuffle=True)
    for row in (
        {"q": "which", "choices": ["xx", "yy", "none of the above"], "key": 1},
        {"q": "which (A)", "choices": ["xx", "yy", "zz"], "key": 1},
    ):
        for id in IDS[:20]:
            (draft,) = made.render(row, id)
            assert draft.messages[0].content.split("\n")[1:3] == ["A. xx", "B. yy"] and not draft.changes


def test_of_several_layouts_each_row_draws_one():
    one = template("p", "{{q}} {{options}}", "{{option}}", layouts=("bullets", "words"))
    made = phrasings(one, options=Options(compile_expression("a"), {"x": "yes", "y": "no"}))
    counts = Counter(made.render({"q": "ok?", "a": "y"}, id)[0].messages[0].content for id in IDS)
    assert set(counts) == {"ok? - yes\n- no", "ok? yes or no"} and min(counts.values()) > 900


def test_columns_of_a_table_may_have_other_names():
    made = phrasings(*many(1), columns={"q": "question", "a": "gold"})
    (draft,) = made.render({"question": "why", "gold": "because", "a": "not this"}, "s:1")
    assert [message.content for message in draft.messages] == ["0: why", "because"]


def test_a_template_may_be_for_rows_of_one_option():
    options = Options(compile_expression("a"), {"0": "no", "1": "yes"})
    made = phrasings(template("p", when="option == 'yes'"), template("q", when="option != 'yes'"), options=options)
    assert drawn(made, {"q": "x", "a": "1"}, "s:1") == drawn(made, {"q": "x", "a": 1}, "s:1") == ["p"]
    assert drawn(made, {"q": "x", "a": "0"}, "s:1") == ["q"]
    for label, reason in (("7", "label_outside_options"), (None, "missing_column")):
        with pytest.raises(Rejected) as fault:
            made.render({"q": "x", "a": label}, "s:1")
        assert fault.value.reason == reason
    assert made.reads == {"q", "a"}
    made.check_columns({"q", "a"}, "t")


# In a source


def table(tmp_path, rows):
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return path


def test_rows_carry_task_cluster_phrasing_and_item(tmp_path):
    made = phrasings(
        template("p"), template("turned", "{{a}}?", "{{q}}", kind="inverted"),
        template("own", "! {{q}}", task="mine", cluster="theirs"), per_row=None,
    )  # fmt: skip
    path = table(tmp_path, [ROW, {"q": "WHY ", "a": "so"}, {"q": "how", "a": "thus", "task": "x", "kind": 7}])
    source = read_source("s", path, phrasings=made)
    labels = [(row.id, row.cluster, row.task, row.phrasing) for row in source.rows[:3]]
    assert labels == [
        ("s:1.1", "c", "t", "p"),
        ("s:1.2", "c", "t_inverted", "turned"),
        ("s:1.3", "theirs", "mine", "own"),
    ]
    items = [row.item for row in source.rows]
    assert len({*items[:6]}) == 1, "rows of one question are one item, whatever asks it"
    assert len(set(items)) == 2 and all(items) and source.rows[6].task == "t"
    assert source.rows[6].extra == {"kind": 7}
    assert source.read == source.kept == 9 and "3 rows of the table gave 9" in source.note
    named = read_source("s", path, phrasings=made, cluster="ours", task="job", map={"item": "a"}).rows
    assert (named[0].cluster, named[0].task, named[1].task, named[2].cluster) == (
        "ours",
        "job",
        "job_inverted",
        "theirs",
    )
    assert [row.item for row in named[::3]] == ["because", "so", "thus"]


def test_rows_that_are_added_leave_the_others_as_they_were(tmp_path):
    rows = [{"q": f"q{number}", "a": f"a{number}"} for number in range(200)]
    made = phrasings(*many(5))
    before = {row.id: row for row in read_source("s", table(tmp_path, rows[:100]), phrasings=made).rows}
    after = {row.id: row for row in read_source("s", table(tmp_path, rows), phrasings=made).rows}
    assert len(after) == 200 and all(after[id] == row for id, row in before.items())


def test_each_row_of_the_table_is_accounted_for(tmp_path):
    rows = [
        ROW,
        "oops",
        {"q": "", "a": "x"},
        {"q": "y", "a": " "},
        [1],
        {"q": "\ud83d", "a": "z"},
        {"q": "z", "a": "z"},
    ]
    source = read_source("s", table(tmp_path, rows), phrasings=phrasings(*many(2), per_row=2))
    assert [row.id for row in source.rows] == ["s:1.1", "s:1.2", "s:7.1", "s:7.2"]
    assert sorted((drop.row, drop.reason) for drop in source.rejected) == [
        ("s:2", "bad_json"), ("s:3", "missing_column"), ("s:4.1", "empty_response"), ("s:4.2", "empty_response"),
        ("s:5", "not_an_object"), ("s:6", "invalid_utf8"),
    ]  # fmt: skip
    assert source.read == 10


def test_a_missing_column_is_told_before_anything_is_read(tmp_path):
    path = table(tmp_path, [{"question": "why", "a": "x"}] * 3)
    taken = []
    with pytest.raises(
        DataError, match=r"template p0 of f\.yaml names column 'q', and .* lacks it.*There is a, question"
    ):
        read_source("s", path, phrasings=phrasings(*many(1)), into=taken.append)
    with pytest.raises(DataError, match=r"templates\.columns takes q from column 'qestion'.*Did you mean 'question'"):
        read_source("s", path, phrasings=phrasings(*many(1), columns={"q": "qestion"}), into=taken.append)
    with pytest.raises(DataError, match="names column 'b'"):
        read_source("s", table(tmp_path, [ROW]), phrasings=phrasings(template("p", when="b")), into=taken.append)
    assert not taken
