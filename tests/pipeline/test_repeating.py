"""An evaluation is a function of model and items: done again from nothing, not one byte differs."""

from tunesmith import pipeline

SUITES = (
    "evaluate.suites=[{kind: instructions, items: 6, max_new_tokens: 8, name: verified}, "
    "{kind: answers, path: %s, name: again, items: 5, max_new_tokens: 8}]"
)


def test_two_evaluations_differ_in_not_one_item(recipe, tmp_path):
    rows = "".join(f'{{"instruction": "Say {word}.", "response": "{word}"}}\n' for word in "abcdefgh")
    (tmp_path / "items.jsonl").write_text(rows)
    loaded = recipe("evaluate.items=12", SUITES % (tmp_path / "items.jsonl"))
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        assert pipeline.run(loaded, folder, until="evaluate") == 0
    files = sorted(path.relative_to(folders[0]) for path in (folders[0] / "evaluation").rglob("*.json*"))
    assert sum(path.name == "items.jsonl" for path in files) == 3
    for path in files:
        one, two = ((folder / path).read_bytes() for folder in folders)
        assert one == two and len(one) > 100, path
