"""Suites of a recipe: read before anything is spent, the same items for both models, guards that end the run."""

import json

import pytest

from tunesmith.base.errors import DataError, LimitBroken, RecipeError, UserError
from tunesmith.data.ledger import Ledger
from tunesmith.pipeline import run
from tunesmith.pipeline.exporting import placed_rows
from tunesmith.pipeline.folder import RunFolder
from tunesmith.report.load import load_run
from tunesmith.report.suites import suite_rows

QUESTIONS = [{"question_id": n, "category": "a", "turns": [f"Name {n} birds.", "Now one more."]} for n in range(3)]


def suites(*given):
    return "evaluate.suites=" + json.dumps(given)


@pytest.fixture
def files(tmp_path):
    def write(name, rows):
        path = tmp_path / name
        path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
        return str(path)

    return write


def test_every_kind_of_suite_is_measured_compared_and_reported(recipe, files, tmp_path):
    rows = [{"instruction": f"What is {n} plus 1?", "output": f"It is {n + 1}."} for n in range(12)]
    given = [
        {"path": files("sums.jsonl", rows), "metric": "number", "items": 8, "max_new_tokens": 8},
        {"path": files("sums2.jsonl", rows), "kind": "loss"},
        {
            "path": files("plain.txt", ["The fox went out on a chilly night.\n\nIt prayed for the moon.\n"]),
            "kind": "text",
        },
        {"path": files("talk.jsonl", QUESTIONS), "kind": "questions", "max_new_tokens": 4},
    ]
    assert run(recipe(suites(*given)), tmp_path / "run") == 0
    summary = json.loads((tmp_path / "run/evaluation/summary.json").read_text())
    found = summary["suites"]
    assert {name: (one["kind"], one["n"]) for name, one in found.items()} == {
        "sums": ("answers", 8),
        "sums2": ("loss", 12),
        "plain": ("text", found["plain"]["n"]),
        "talk": ("questions", 3),
    }
    folder = tmp_path / "run/evaluation/suites"
    items = [json.loads(line) for line in (folder / "sums/items.jsonl").read_text().splitlines()]
    assert len(items) == 8 and {item["metric"] for item in items} == {"number"}
    assert found["sums"]["tuned"]["mean"] == pytest.approx(sum(item["scores"]["tuned"] for item in items) / 8)
    talk = [json.loads(line) for line in (folder / "talk/answers_tuned.jsonl").read_text().splitlines()]
    assert [one["question_id"] for one in talk] == ["0", "1", "2"] and all(len(one["answers"]) == 2 for one in talk)
    assert [row.name for row in suite_rows(load_run(tmp_path / "run").evaluation)] == list(found)
    assert "sums2" in (tmp_path / "run/report.html").read_text()


def test_a_broken_guard_ends_the_run_with_the_report_written(recipe, files, tmp_path):
    text = files("plain.txt", ["Zymurgy qualms vex jocund sphinxes.\n"])
    replayed = ["train.learning_rate=0.05", "data.replay=null"]
    with pytest.raises(LimitBroken, match=r"plain got worse by .*guard is 0.0%"):
        run(recipe(suites({"path": text, "kind": "text", "guard": 0.0}), *replayed), tmp_path / "run")
    assert "broken" in (tmp_path / "run/report.html").read_text()


def test_items_that_are_trained_are_refused_or_counted(recipe, files, tmp_path):
    rows = [{"instruction": f"Say {word} twice.", "output": f"{word} {word}"} for word in "red blue green".split()]
    data = files("mine.jsonl", rows * 4 + [{"instruction": f"Say it {n} times.", "output": "no"} for n in range(40)])
    exam = files("exam.jsonl", [*rows, {"instruction": "Say nothing at all.", "output": "."}])
    source = f"data.sources={json.dumps([{'path': data}])}"
    held = ["data.hold_out={items: 0.2}", "data.replay=null"]
    with pytest.raises(UserError, match=r"of its 4 items ask what the model is trained on.*decontaminate"):
        run(recipe(source, *held, suites({"path": exam})), tmp_path / "run")
    assert not (tmp_path / "run/model").exists()
    allowed = suites({"path": exam, "allow_trained": True, "max_new_tokens": 4})
    assert run(recipe(source, *held, allowed), tmp_path / "run") == 0
    summary = json.loads((tmp_path / "run/evaluation/summary.json").read_text())
    assert 1 <= summary["suites"]["exam"]["trained"] <= 3


@pytest.mark.parametrize(
    ("rows", "more", "told"),
    [
        ([{"instruction": "Name a bird."}], {}, "none of the 1 items.*reference response"),
        ([{"prompt": "Name a bird."}], {"kind": "questions"}, "no question.*turns"),
        (["{broken\n"], {"kind": "questions"}, "no question"),
        (["not json\n"], {}, "none of the 1 items"),
        ([{"instruction": "Name a bird.", "output": "A heron."}], {"metric": "number"}, "does not fit.*holds a number"),
    ],
)
def test_a_file_in_an_unknown_shape_is_refused_before_anything_is_spent(recipe, files, tmp_path, rows, more, told):
    with pytest.raises((DataError, UserError), match=rf"(?s){told}"):
        run(recipe(suites({"path": files("bad.jsonl", rows)} | more)), tmp_path / "run")
    assert not (tmp_path / "run/model").exists() and not (tmp_path / "run/evaluation/base.json").exists()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"kind": "benchmark"}, "needs a `task`"),
        ({"kind": "loss"}, "needs a `path`"),
        ({"path": "a.jsonl", "name": "../a"}, "name of a folder"),
        ({"path": "a.jsonl", "name": "/a/b"}, "name of a folder"),
        ({"path": "a.jsonl", "task": "arc"}, "`task` has no effect"),
        ({"path": "a.jsonl", "kind": "text", "metric": "number"}, "`metric` has no effect"),
        ({"path": "a.jsonl", "kind": "questions", "guard": 0.1}, "`guard` has no effect"),
    ],
)
def test_a_suite_that_means_nothing_is_a_fault_of_the_recipe(recipe, given, told):
    with pytest.raises(RecipeError, match=told):
        recipe(suites(given))


def test_a_task_file_names_its_suite_by_its_stem(recipe):
    given = suites({"kind": "benchmark", "task": "tasks/numbers.v2.yaml"}, {"kind": "benchmark", "task": "arc_easy"})
    assert [suite.name for suite in recipe(given).recipe.evaluate.suites] == ["numbers.v2", "arc_easy"]


def test_two_suites_of_one_name_are_a_fault(recipe):
    with pytest.raises(RecipeError, match="several suites are called a"):
        recipe(suites({"path": "x/a.jsonl"}, {"path": "y/a.jsonl"}))


def test_choices_and_instructions_are_scored_item_by_item(recipe, files, tmp_path):
    asked = [{"question": f"What is {n} plus 1?", "options": ["cat", str(n + 1), "no"], "answer": 1} for n in range(6)]
    files("part1.jsonl", asked[:3]), files("part2.jsonl", asked[3:])
    several = {"path": str(tmp_path / "part*.jsonl"), "name": "choices"}
    given = [
        several | {"kind": "choice", "normalise": "unconditional", "guard": 1},
        {"kind": "instructions", "items": 4, "max_new_tokens": 4},
    ]
    assert run(recipe("evaluate.items=0", "evaluate.losses=4", suites(*given)), tmp_path / "run") == 0
    found = json.loads((tmp_path / "run/evaluation/summary.json").read_text())["suites"]
    assert found["choices"]["n"] == 6 and found["instructions"]["n"] == 4
    lines = (tmp_path / "run/evaluation/suites/choices/items.jsonl").read_text().splitlines()
    assert len({json.loads(line)["item"] for line in lines}) == 6, "items of two files are not one item"
    for item in map(json.loads, lines):
        assert set(item["answers"].values()) <= {"cat", "no", item["expected"]}
        assert all(item["scores"][who] == (item["answers"][who] == item["expected"]) for who in item["answers"])


@pytest.mark.slow  # importing lm-eval alone takes seconds
@pytest.mark.filterwarnings("ignore")
def test_a_task_of_the_harness_is_a_suite(recipe, files, tmp_path, capsys):
    pytest.importorskip("lm_eval")
    rows = [{"question": f"Is {n} a number?", "answer": 0} for n in range(5)]
    task = tmp_path / "numbers.yaml"
    task.write_text(
        f"""
task: numbers
dataset_path: json
dataset_kwargs: {{data_files: {{test: {files("numbers.jsonl", rows)}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "Read this. {{{{question}}}} Answer with yes or no:"
doc_to_target: answer
doc_to_choice: ["yes", "no"]
metric_list: [{{metric: acc}}]
"""
    )
    given = {"kind": "benchmark", "task": str(task), "name": "numbers", "guard": 1}

    def measured(**more):
        assert run(recipe("evaluate.items=0", "evaluate.losses=4", suites(given | more)), tmp_path / "run") == 0
        return json.loads((tmp_path / "run/evaluation/summary.json").read_text())["suites"]["numbers"]

    found = measured()
    assert found["n"] == 5 and found["metric"] == "acc" and found["trained"] == 0
    files("numbers.jsonl", [row | {"answer": 1} for row in rows])
    assert measured()["tuned"]["mean"] == pytest.approx(1 - found["tuned"]["mean"]), "changed data is measured again"

    done = RunFolder.open(tmp_path / "run", recipe())
    placed = list(placed_rows(done, Ledger.load(done.path / "ledger")))
    asked = {
        split: [row.prompt[-1].content for one, row in placed if one == split and row.prompt]
        for split in ("train", "test")
    }
    held_out = next(text for text in asked["test"] if text not in asked["train"])
    long = next(text for text in asked["train"] if len(text.split()) > 6)
    files("numbers.jsonl", [*rows, {"question": long, "answer": 0}, {"question": held_out, "answer": 0}])
    with pytest.raises(UserError, match=r"at least 1 of its 7 items.*numbers:5 in row"):
        measured()
    assert measured(allow_trained=True)["trained"] == 1
    assert "7 items, at least 1 of them trained on" in capsys.readouterr().err
