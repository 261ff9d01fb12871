"""What a run's splits keep apart, what is chosen by validation, and what the mixture draws, from the recipe on."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from tunesmith.base.conversation import Conversation, Message
from tunesmith.base.errors import UserError
from tunesmith.data.coverage.worked import is_worked
from tunesmith.data.ledger import Ledger
from tunesmith.data.rows import Rows
from tunesmith.model.load import load_tokenizer
from tunesmith.pipeline import run
from tunesmith.pipeline.folder import RunFolder
from tunesmith.pipeline.preparing import open_prepared, tokenizer_of
from tunesmith.pipeline.splitting import split_rows, worked_rows
from tunesmith.pipeline.training import _watched
from tunesmith.pocket import tasks

PASSAGE = "The ship {0} left harbour {0} at dawn and sailed along coast {0} until captain {0} saw the lighthouse of {0}"


@pytest.fixture
def prepared(recipe, tmp_path):
    """A function that prepares the small recipe with overrides: the run's folder, and what it hands over."""

    def prepare(*overrides):
        loaded = recipe(*overrides)
        assert run(loaded, tmp_path / "run", until="prepare") == 0
        folder = RunFolder.open(tmp_path / "run", loaded)
        return folder, open_prepared(folder, tokenizer_of(folder.recipe, load_tokenizer))

    return prepare


def places(folder):
    return {row["row"]: row["place"] for row in pq.read_table(folder.path / "ledger/places.parquet").to_pylist()}


def test_validation_chooses_and_is_not_reported(prepared):
    folder, data = prepared("data.hold_out.validation=0.2")
    found = places(folder)
    chosen_by = {row.id for row in data.validation}
    assert chosen_by == {id for id, place in found.items() if place == "validation"} and len(chosen_by) > 10
    reported = {row.id for rows in data.held_out.values() for row in rows}
    assert reported and not chosen_by & reported and "validation" not in data.held_out
    trained = {data.store.row_ids[index] for _, order in data.plan.epochs for index in order.tolist()}
    assert not trained & (chosen_by | reported)
    watched = _watched(data, 0)
    assert list(watched) == ["validation"] and {row.id for row in watched["validation"]} <= chosen_by


def test_without_validation_the_levels_are_watched(prepared):
    _, data = prepared()
    assert not data.validation and set(_watched(data, 0)) == {level for level, rows in data.held_out.items() if rows}


def test_tokens_and_worked_reasoning_are_drawn_as_planned(prepared):
    folder, data = prepared(
        *("data.sources=[{pocket: 1200, name: small}]", "data.mix.unit=tokens", "data.mix.reasoning=0.1"),
        *("data.mix.total=20000", "data.mix.strategy=temperature", "data.mix.temperature=inf"),
    )
    rows = {row.id: row for row in tasks.conversations(0, 1200, "small")}
    worked = set(worked_rows(folder))
    trained = {id for id, place in places(folder).items() if place == "train"}
    assert worked == {id for id in trained if is_worked(rows[id])} and len(worked) > 10

    mixture = json.loads((folder.path / "ledger/mixture.json").read_text())
    drawn = np.bincount(data.plan.epochs[0][1], minlength=len(data.store)) * data.store.lengths
    of_row = {}
    for index, id in enumerate(data.store.row_ids):
        of_row[id] = of_row.get(id, 0) + int(drawn[index])
    with_it, all_of_it = (sum(of_row.get(id, 0) for id in ids) for ids in (worked, trained))
    longest = int(data.store.lengths.max())
    assert abs(with_it - 2000) < longest and abs(all_of_it - 20000) < 16 * longest
    for name, group in mixture["groups"].items():
        cluster = name.removesuffix(", worked")
        members = [id for id in trained if rows[id].cluster == cluster and (id in worked) == (name != cluster)]
        assert group["rows"] == len(members)
        assert group["drawn_tokens"] == sum(of_row[id] for id in members)
        assert abs(group["drawn_tokens"] - 20000 * group["planned"]) < longest
        assert group["share_of_tokens"] == pytest.approx(group["drawn_tokens"] / all_of_it) == group["share"]


def row(number, asked, answer, cluster="c"):
    return Conversation(f"s:{number}", (Message("user", asked), Message("assistant", answer)), "s", cluster)


def sides_of(rows, recipe, tmp_path, *overrides):
    ledger = Ledger(tmp_path / "ledger")
    given = recipe("data.hold_out={items: 0.2, phrasings: 0}", *overrides).recipe
    with Rows(tmp_path / "rows.jsonl", in_memory=10) as stored:
        labels = [stored.append(one) for one in rows]
        found = {name: {row.id for row in side} for name, side in split_rows(stored, labels, given, ledger).items()}
    return found, ledger.summary()[-1]


def test_near_duplicates_are_found_by_the_split_alone(recipe, tmp_path):
    rows = []
    for number in range(200):
        passage = " ".join(PASSAGE.format(word) for word in (f"a{number}", f"b{number}"))
        answer = f"They saw the lighthouse of a{number} and turned around before it was night."
        rows += [row(f"{number}.{k}", f"{passage}. {asked}", answer) for k, asked in enumerate(("What?", "Tell it!"))]
    together, _ = sides_of(rows, recipe, tmp_path)
    held = {id.rpartition(".")[0] for id in together["new_items"]}
    assert len(together["new_items"]) == 80 == 2 * len(held)
    apart, _ = sides_of(rows, recipe, tmp_path, "data.hold_out.near=null")
    held = {id.rpartition(".")[0] for id in apart["new_items"]}
    assert len(held) > 60  # so most are asked in other words in training


def test_a_template_that_makes_all_rows_alike_is_told(recipe, tmp_path):
    rows = [row(n, PASSAGE.format("x") + " " + PASSAGE.format("y") + f" Is it {n}?", "yes") for n in range(100)]
    rows += [row(n, f"What is {n} and {n * n}?", "b" * n, "d") for n in range(100, 200)]
    found, step = sides_of(rows, recipe, tmp_path)
    assert all(int(id[2:]) >= 100 for id in found["new_items"]) and found["new_items"]
    assert "no items are held out of c: nearly all of their rows are near-duplicates" in step["note"]


def test_what_cannot_be_split_is_told(recipe, tmp_path):
    rows = [row(n, f"What is {n}?", "b", "c" if n else "lonely") for n in range(30)]
    _, step = sides_of(rows, recipe, tmp_path)
    assert "no items are held out of lonely: fewer than 5 items each" in step["note"]
    with pytest.raises(UserError, match="none is left to train on"):
        sides_of(rows, recipe, tmp_path, "data.hold_out.clusters=[c, lonely]")
    with pytest.raises(UserError, match="40 folds need 40 items or more, and there are 30"):
        sides_of(rows, recipe, tmp_path, "data.hold_out={folds: {of: 40}}")
