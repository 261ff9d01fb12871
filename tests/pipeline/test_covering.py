"""Coverage of a prepared run: measured on the rows that are trained on, and judged by the recipe's target."""

import json
from pathlib import Path

import pytest

from tunesmith.base.errors import UserError
from tunesmith.base.files import read_json
from tunesmith.model.load import load_tokenizer
from tunesmith.pipeline.covering import judge, say_coverage
from tunesmith.pipeline.folder import RunFolder
from tunesmith.pipeline.preparing import prepare, tokenizer_of
from tunesmith.recipe.load import load_recipe


def run_of(folder: Path, coverage: str, clean: bool = False) -> RunFolder:
    rows = [
        {
            "instruction": f"What is {number} times {number + 1}?",
            "output": f"{number * (number + 1)}",
            "cluster": "sums",
        }
        for number in range(150)
    ] + [
        {"instruction": f"Write a poem about the number {number}.", "output": f"O {number}!", "cluster": "verse"}
        for number in range(50)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    recipe = folder / "recipe.yaml"
    recipe.write_text(
        f"data:\n  sources: [{{path: rows.jsonl}}]\n  hold_out: {{items: 0.1}}\n  coverage: {coverage}\n"
        + "  clean: {}\n" * clean,
        encoding="utf-8",
    )
    run = RunFolder.open(folder / "run", load_recipe(str(recipe)))
    with run.running():
        prepare(run, tokenizer_of(run.recipe, load_tokenizer))
    return run


@pytest.mark.parametrize("clean", [False, True], ids=["as read", "curated"])
def test_what_is_trained_on_is_covered(tmp_path: Path, capsys: pytest.CaptureFixture[str], clean: bool) -> None:
    run = run_of(tmp_path, "{categories: 2, rows: 40, given: {sums: math}}", clean)
    warned = judge(run)
    found = read_json(run.path / "data" / "coverage.json")
    trained = next(step for step in read_json(run.path / "ledger" / "steps.json") if step["stage"] == "split")
    count = int(trained["note"].split("train ")[1].split(",")[0].split(";")[0])
    assert found["rows"] == found["sampled"] == count < 200
    counts = {each["category"]: each["rows"] for each in found["categories"]}
    assert counts["math"] + counts["writing"] == count
    assert found["target"]["categories"] == 2 and found["reached"] == ["math", "writing"]
    assert [each["kind"] for each in found["warnings"]] == [each.kind for each in warned]
    assert "balance" in {each.kind for each in warned} and "categories" not in {each.kind for each in warned}
    say_coverage(run)
    assert "Coverage of rows before they are mixed: math" in capsys.readouterr().err


def test_another_target_is_judged_without_preparing_again(tmp_path: Path) -> None:
    first = run_of(tmp_path, "{categories: 2, rows: 40}")
    assert "categories" not in {each.kind for each in judge(first)}
    key = first.facts["keys"]["prepare"]
    second = run_of(tmp_path, "{categories: 12, rows: 40}")
    assert second.facts["keys"]["prepare"] == key
    assert "categories" in {each.kind for each in judge(second)}


def test_nothing_is_measured_where_it_is_not_wanted(tmp_path: Path) -> None:
    run = run_of(tmp_path, "null")
    assert judge(run) == []
    assert not (run.path / "data" / "coverage.json").exists()


def test_a_cluster_that_no_row_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"names the cluster 'sum', .* Did you mean 'sums'\? There is sums, verse"):
        run_of(tmp_path, "{given: {sum: math}}")
