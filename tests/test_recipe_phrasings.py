"""Files of prompt templates: their faults, what a source says of them, and the shipped ones on rows of their shape."""

import json
import os
import re
from collections import Counter
from pathlib import Path

import pytest

from tunesmith.base.errors import RecipeError, UserError
from tunesmith.data.sources.read import read_source
from tunesmith.recipe import load_recipe
from tunesmith.recipe.data import Source, Templates
from tunesmith.recipe.phrasings import phrasings_of, read_templates, shipped_templates

DATA = Path(os.environ.get("TUNESMITH_DATA", Path(__file__).parents[2] / "shared" / "data"))
GOOD = """
task: nli
options: [yes, maybe, no]
templates:
  - name: a
    prompt: "{{p}} {{options}}"
    response: "{{option}}"
"""


def faults(tmp_path, text):
    path = tmp_path / "t.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError) as error:
        read_templates(path)
    return [line.strip() for line in str(error.value).splitlines()[1:-1]]


def source_of(tmp_path, text=GOOD, **given):
    path = tmp_path / "t.yaml"
    path.write_text(text)
    return Source(path="t.jsonl", templates=Templates(file=str(path), **given))


def test_all_faults_of_a_file_are_told_with_their_lines(tmp_path):
    found = faults(
        tmp_path,
        """
task: nli
optoins: [yes, no]
templates:
  - name: a
    prompt: "{{ p"
    response: "{{ ''.__class__ }}"
  - {name: b, prompt: "{{ 'x' * 9 }}", respnse: "{{r}}"}
  - {name: c, prompt: "{{p}}", response: "{{r|trimm}}", when: "a b", kind: turned}
""",
    )
    assert "line 3: optoins: unknown key; did you mean `options`?" in found[0]
    text = "\n".join(found)
    for place, words in {
        "line 6: templates.0.prompt": "no template that can be read",
        "line 7: templates.0.response": "'__class__' is not allowed",
        "line 8: templates.1.prompt": "`*` is not allowed",
        "line 8: templates.1.respnse": "did you mean `response`?",
        "line 9: templates.2.response": "no filter 'trimm' in prompt templates. Did you mean 'trim'?",
        "line 9: templates.2.when": "goes on behind",
        "line 9: templates.2.kind": "Allowed: direct, inverted, worked",
    }.items():
        assert re.search(f"{re.escape(place)}: .*{re.escape(words)}", text), (place, text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "task: missing"),
        ("task: t\ntemplates: []", "templates: "),
        ("task: t\ntemplates: [{name: a, prompt: hello, response: '{{r}}'}]", "every row would ask the same"),
        (GOOD.replace("[yes, maybe, no]", "[1, 2]"), "must be a list of two words or more"),
        (GOOD.replace("[yes, maybe, no]", '["1", "2"]'), "write a mapping from label to words"),
        (GOOD.replace("[yes, maybe, no]", "[yes]"), "must be a list of two words or more"),
        (GOOD.replace("[yes, maybe, no]", "[yes, yes]"), "hold 'yes' twice"),
        (GOOD.replace("options:", "options_from: c\noptions:"), "both given"),
        (GOOD.replace("task: nli", "task: nli\nlabel_is: number"), "`label_is` has no effect"),
        (GOOD.replace("options: [yes, maybe, no]", "layout: words"), "`layout` has no effect"),
        (GOOD.replace("{{option}}", "{{letter}}"), "give it `layout: letters`"),
        (GOOD + "    when: letter == 'A'\n", "of a row's options it may name `option`"),
        (GOOD + "    reasoning: '{{r}}'\n", "its `kind` is worked"),
        (GOOD + GOOD.partition("templates:\n")[2], "several templates are called a"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path, text, words):
    assert words in "\n".join(faults(tmp_path, text))


def test_words_are_read_as_they_stand(tmp_path):
    (tmp_path / "t.yaml").write_text(GOOD)
    assert read_templates(tmp_path / "t.yaml").options == {"yes": "yes", "maybe": "maybe", "no": "no"}
    (tmp_path / "t.yaml").write_text(GOOD.replace("[yes, maybe, no]", "{0: no, 1: yes}"))
    assert read_templates(tmp_path / "t.yaml").options == {"0": "no", "1": "yes"}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"inverted": 0.1}, "asks for inverted templates, and t.yaml has none"),
        ({"columns": {"q": "x"}}, "names q, which no template of t.yaml reads. They read label, p"),
    ],
)
def test_settings_without_effect_are_refused(tmp_path, given, words):
    source = source_of(tmp_path, **given)
    with pytest.raises(UserError, match=re.escape(words)):
        phrasings_of(source, source.templates)


def test_more_settings_without_effect_are_refused(tmp_path):
    plain = "task: t\ntemplates: [{name: a, prompt: '{{p}}', response: '{{r}}', kind: worked}]"
    for given, words in (
        ({"shuffle_options": True}, "shuffle_options has no effect"),
        ({"worked": 0.5}, "add up to 1"),
    ):
        source = source_of(tmp_path, plain, **given)
        with pytest.raises(UserError, match=words):
            phrasings_of(source, source.templates)
    for given, words in (
        ("{path: x, format: alpaca, templates: {file: choices}}", "`format` has no effect with `templates`"),
        ("{path: x, map: {response: a}, templates: {file: choices}}", "`map` reads nothing into response"),
        ("{pocket: 9, templates: {file: choices}}", "`templates` has no effect with `pocket`"),
        ("{path: x, templates: {file: choices, per_row: all, worked: 0.5}}", "`worked` has no effect with `per_row"),
        ("{path: x, templates: {file: choices, inverted: 0.6, worked: 0.5}}", "more than 1"),
        ("{path: x, templates: {file: choices, per_row: 0}}", "0 must be a number of phrasings from 1, or `all`"),
    ):
        (tmp_path / "r.yaml").write_text(f"data: {{sources: [{given}]}}")
        with pytest.raises(RecipeError, match=words):
            load_recipe(str(tmp_path / "r.yaml"))


def test_a_file_counts_from_the_recipes_folder_and_a_name_is_a_shipped_one(tmp_path):
    (tmp_path / "mine.yaml").write_text(GOOD)
    (tmp_path / "r.yaml").write_text("data: {sources: [{path: x.csv, templates: {file: mine.yaml}}]}")
    assert load_recipe(str(tmp_path / "r.yaml")).recipe.data.sources[0].templates.file == str(tmp_path / "mine.yaml")
    (tmp_path / "r.yaml").write_text("data: {sources: [{path: x.csv, templates: {file: choices}}]}")
    source = load_recipe(str(tmp_path / "r.yaml")).recipe.data.sources[0]
    assert source.templates.file == "choices" and phrasings_of(source, source.templates).file.task == "multiple_choice"
    source = Source(path="x.csv", templates=Templates(file="chioces"))
    with pytest.raises(UserError, match="Did you mean 'choices'"):
        phrasings_of(source, source.templates)


def rendered(tmp_path, name, rows, **given):
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    source = Source(path=str(path), templates=Templates(file=name, **{"per_row": "all"} | given))
    found = read_source("s", path, phrasings=phrasings_of(source, source.templates))
    assert not found.rejected, found.rejected[:3]
    return found.rows


def test_shipped_entailment(tmp_path):
    rows = rendered(
        tmp_path, "entailment", [{"premise": f"P{n}.", "hypothesis": f"H{n}.", "label": n} for n in range(3)]
    )
    for row in rows:
        n = int(row.id.split(":")[1].split(".")[0]) - 1
        asked = row.messages[0].content
        if row.task == "entailment":
            assert row.response == ["yes", "maybe", "no"][n]
            assert f"P{n}." in asked and f"H{n}." in asked and all(word in asked for word in ("yes", "maybe", "no"))
        else:
            assert row.task == "entailment_inverted" and row.response == f"H{n}." and f"P{n}." in asked
    assert Counter(row.task for row in rows) == {"entailment": 18, "entailment_inverted": 3}


def test_shipped_choices(tmp_path):
    table = [{"question": f"Q{n}?", "choices": ["north", "south", "east", "west"], "label": n} for n in range(4)]
    for shuffle in (False, True):
        for row in rendered(tmp_path, "choices", table, shuffle_options=shuffle):
            right = ["north", "south", "east", "west"][int(row.id.split(":")[1].split(".")[0]) - 1]
            asked = row.messages[0].content
            if row.phrasing in ("answer_with_the_letter", "quiz"):
                assert f"{row.response}. {right}" in asked.split("\n")
            elif row.phrasing == "write_the_question":
                assert row.response.startswith("Q") and f'"{right}"' in asked and f"- {right}" not in asked
            else:
                assert right in row.response and "Q" in asked
                assert all(word in asked for word in ("north", "south", "east", "west"))


def test_shipped_classification(tmp_path):
    for row in rendered(tmp_path, "classification", [{"text": "T0", "label": 0}, {"text": "T1", "label": 1}]):
        word = ["negative", "positive"][int(row.id[2]) - 1]
        if row.phrasing == "letters":
            assert f"{row.response}. {word}" in row.messages[0].content
        elif row.phrasing == "write_one":
            assert row.response.startswith("T") and word in row.messages[0].content
        else:
            assert row.response == word and "negative" in row.messages[0].content and "T" in row.messages[0].content


def test_shipped_worked(tmp_path):
    answer = "He has 2*3 = <<2*3=6>>6 eggs.\nThat is 6-1 = <<6-1=5>>5.\n#### 5"
    by = {row.phrasing: row for row in rendered(tmp_path, "worked", [{"question": "How many?", "answer": answer}])}
    assert by["only_the_result"].response == by["result_first"].response == "5"
    assert by["step_by_step"].response == "He has 2*3 = 6 eggs.\nThat is 6-1 = 5.\nThe answer is 5."
    assert by["find_the_question"].response == "How many?"
    assert not any("<<" in m.content or "####" in m.content for row in by.values() for m in row.messages)


def test_shipped_instructions_keep_request_input_and_answer(tmp_path):
    table = [{"instruction": "Add.", "input": "2 3", "output": " 5\n  6"}, {"instruction": "Sing.", "output": "La."}]
    rows = rendered(tmp_path, "instructions", table)
    assert Counter(row.id.split(".")[0] for row in rows) == {"s:1": 6, "s:2": 5}
    for row in rows:
        given = table[int(row.id[2]) - 1]
        assert row.response == given["output"] and given["instruction"] in row.messages[0].content
        assert given.get("input", "") in row.messages[0].content
    assert rows[0].messages[0].content == "Add.\n\n2 3"
    lacking = rendered(tmp_path, "instructions", [{"instruction": "Sing.", "output": "La."}])  # the table has no input
    assert len(lacking) == 5


def test_every_shipped_file_is_tried_above():
    here = Path(__file__).read_text(encoding="utf-8")
    assert all(f"def test_shipped_{name}" in here for name in shipped_templates())


def test_gsm8k_by_the_shipped_templates():
    path = DATA / "gsm8k_train.jsonl"
    if not path.exists():
        pytest.skip(f"no {path}")
    source = Source(path=str(path), templates=Templates(file="worked", worked=0.4, inverted=0.1))
    found = read_source("gsm8k", path, phrasings=phrasings_of(source, source.templates))
    assert found.read == found.kept == 7473
    kinds = Counter(row.phrasing for row in found.rows)
    assert abs(kinds["find_the_question"] / 7473 - 0.1) < 0.015
    worked = sum(kinds[name] for name in ("step_by_step", "show_your_work", "explain_to_a_pupil"))
    assert abs(worked / 7473 - 0.4) < 0.025
    results = [json.loads(line)["answer"].split("####")[1].strip() for line in path.read_text().splitlines()]
    for row, result in zip(found.rows, results, strict=True):
        assert row.task.endswith("_inverted") or row.response.rstrip(".").endswith(result)
