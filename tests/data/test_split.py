import os
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.base.conversation import Conversation, Message
from tunesmith.base.errors import UserError
from tunesmith.data.read import read_source
from tunesmith.data.split import split

DATA = Path(os.environ.get("TUNESMITH_DATA", Path(__file__).parents[3] / "shared" / "data"))


def row(id, prompt="", cluster="c", task="t", phrasing="", item=""):
    messages = (Message("user", prompt or f"prompt {id}"), Message("assistant", "a"))
    return Conversation(f"s:{id}", messages, "s", cluster, task, phrasing, item)


def ids(rows):
    return {one.id for one in rows}


def test_nothing_held_out_keeps_the_rows_in_order():
    rows = [row(n) for n in range(10)]
    result = split(rows, seed=0)
    assert result.train == tuple(rows) and not result.drops and not result.notes
    assert list(result.places) == ["train", "validation", "new_items", "new_phrasings", "new_clusters"]


def test_fractions_are_of_each_cluster_and_seeded():
    rows = [row(n, cluster="big" if n < 900 else "small") for n in range(1000)]
    result = split(rows, items=0.1, validation=0.2, seed=1)
    assert Counter(one.cluster for one in result.new_items) == {"big": 90, "small": 10}
    assert Counter(one.cluster for one in result.validation) == {"big": 162, "small": 18}
    assert split(rows, items=0.1, validation=0.2, seed=1) == result
    assert split(rows, items=0.1, seed=2).new_items != result.new_items
    assert max(int(one.id[2:]) for one in result.new_items if one.cluster == "big") > 450


def test_the_choice_ignores_order_and_survives_new_rows():
    rows = [row(n) for n in range(200)]
    held = ids(split(rows, items=0.1, seed=3).new_items)
    assert ids(split(rows[::-1], items=0.1, seed=3).new_items) == held
    more = ids(split([*rows, row("new")], items=0.1, seed=3).new_items)
    assert len(held - more) <= 1


def test_rows_of_one_item_or_one_prompt_stay_together():
    rows = [row(n, item=f"item {n // 4}") for n in range(400)]
    rows += [
        row(400 + n, prompt=f"  The SAME prompt {n // 2}" if n % 2 else f"the same  prompt {n // 2}")
        for n in range(200)
    ]
    result = split(rows, items=0.3, validation=0.2, seed=0)
    keys = [
        {one.item or " ".join(one.prompt[0].content.casefold().split()) for one in side}
        for side in (result.train, result.validation, result.new_items)
    ]
    assert all(keys) and not keys[0] & keys[1] and not keys[0] & keys[2] and not keys[1] & keys[2]
    assert not result.drops


def test_phrasings_are_held_out_per_task():
    rows = [row(f"{task}{n}", task=task, phrasing=f"p{n % 8}") for task in ("t", "u") for n in range(80)]
    rows += [row(f"single{n}", task="one", phrasing="p0") for n in range(5)]
    result = split(rows, phrasings=0.25, seed=0)
    for task in ("t", "u"):
        assert len({one.phrasing for one in result.new_phrasings if one.task == task}) == 2
        assert len({one.phrasing for one in result.train if one.task == task}) == 6
    assert sum(one.task == "one" for one in result.train) == 5
    assert any("1 of 3 tasks" in note for note in result.notes)
    tiny = split([row(n, phrasing=f"p{n % 2}") for n in range(4)], phrasings=0.01, seed=0)
    assert not tiny.new_phrasings and "0 of 2 phrasings are held out" in tiny.notes[-1]


def test_ten_phrasings_and_a_tenth_hold_out_one_of_every_task():
    rows = [row(f"{t} {p}", task=f"t{t}", phrasing=f"p{p}") for t in range(40) for p in range(10)]
    result = split(rows, phrasings=0.1, seed=0)
    assert Counter(one.task for one in result.new_phrasings) == {f"t{t}": 1 for t in range(40)}
    assert not result.notes


def test_many_small_groups_hold_out_the_share_that_was_asked():
    rows = [row(f"{c} {n}", cluster=f"c{c}") for c in range(400) for n in range(2)]
    result = split(rows, items=0.05, seed=0)
    held = ids(result.new_items)
    assert 25 <= len(held) <= 55 and not result.notes  # 40 on average
    assert max(Counter(one.cluster for one in result.new_items).values()) == 1
    assert ids(split(rows[::-1], items=0.05, seed=0).new_items) == held
    more = [*rows, *(row(f"{c} 2", cluster=f"c{c}") for c in range(10))]
    changed = held ^ ids(split(more, items=0.05, seed=0).new_items)
    assert all(int(id[2:].split()[0]) < 10 for id in changed)
    phrased = [row(f"{t} {p}", task=f"t{t}", phrasing=f"p{p}") for t in range(400) for p in range(4)]
    assert 60 <= len(split(phrased, phrasings=0.05, seed=0).new_phrasings) <= 100  # 80 on average


def test_a_share_far_from_what_was_asked_is_noted():
    rows = [row(n, cluster="c" if n < 12 else f"single {n}") for n in range(100)]
    (single, share) = split(rows, items=0.25, seed=0).notes
    assert single.startswith("a single item in single 12") and single.count("single") < 30 and "…" in single
    assert share.startswith("3 of 100 items are held out, 3.0% where 25.0% was asked")
    half = split([row(n) for n in range(4)], items=0.5, validation=0.5, seed=0)
    assert len(half.new_items) == 2 and len(half.validation) == 1 and not half.notes


def test_held_out_phrasings_of_training_items_are_dropped():
    rows = [row(f"{n}-{p}", phrasing=f"p{p}", item=f"i{n}") for n in range(50) for p in range(4)]
    result = split(rows, phrasings=0.25, items=0.2, seed=0)
    held_items = {one.item for one in result.new_items}
    assert len(held_items) == 10 and len(result.new_items) == 30
    assert {one.item for one in result.new_phrasings} == held_items and len(result.new_phrasings) == 10
    assert Counter(drop.reason for drop in result.drops) == {"held_out_phrasing_of_a_training_item": 40}
    alone = split(rows, phrasings=0.25, seed=0)
    assert not alone.new_phrasings and any("measures nothing" in note for note in alone.notes)


def test_whole_clusters_are_held_out():
    rows = [row(n, cluster=f"c{n % 4}") for n in range(40)] + [row("twin", prompt="PROMPT 0", cluster="c1")]
    result = split(rows, clusters=["c1"], items=0.01, seed=0)
    assert {one.cluster for one in result.new_clusters} == {"c1"}
    assert all(one.cluster != "c1" for one in (*result.train, *result.new_items))
    on_train = "s:0" in ids(result.train)
    assert [drop.reason for drop in result.drops] == ["held_out_cluster_row_of_a_training_item"] * on_train


def test_an_item_shared_in_name_only_still_gives_the_prompt_away():
    rows = [row(n, prompt="the same", item=f"i{n}") for n in range(10)]
    result = split(rows, items=0.3, seed=0)
    assert not result.new_items and len(result.train) == 7
    assert Counter(drop.reason for drop in result.drops) == {"held_out_item_with_a_training_prompt": 3}


def test_faults_name_the_remedy():
    rows = [row(1, cluster="math"), row(2, cluster="code")]
    with pytest.raises(UserError, match="Did you mean 'math'"):
        split(rows, clusters=["maths"], seed=0)
    with pytest.raises(UserError, match="none is left"):
        split(rows, clusters=["math", "code"], seed=0)
    with pytest.raises(UserError, match="fraction"):
        split(rows, items=1.0, seed=0)
    assert "code, math" in split(rows, items=0.5, seed=0).notes[0]
    assert "names its phrasing" in split(rows, phrasings=0.5, seed=0).notes[0]


small = st.integers(0, 3)


@given(
    st.lists(st.tuples(small, small, small, st.integers(0, 8), st.integers(0, 8)), min_size=1, max_size=60),
    st.sampled_from([0.0, 0.1, 0.5]),
    st.sampled_from([0.0, 0.1, 0.5]),
    st.sampled_from([0.0, 0.2]),
    st.integers(0, 5),
)
def test_every_row_has_one_place_and_nothing_held_out_is_trained(drawn, phrasings, items, validation, seed):
    rows = [
        row(n, f"prompt {prompt}", f"c{c}", f"t{t}", f"p{p}" if p else "", f"i{item}" if item else "")
        for n, (c, t, p, item, prompt) in enumerate([(0, 0, 0, 0, 0), *drawn])
    ]
    held = ["c3"] if any(one.cluster == "c3" for one in rows) else []
    result = split(rows, clusters=held, phrasings=phrasings, items=items, validation=validation, seed=seed)
    fates = [one.id for side in result.places.values() for one in side] + [drop.row for drop in result.drops]
    assert sorted(fates) == sorted(one.id for one in rows)

    trained = {one.item for one in result.train} - {""}, {one.prompt for one in result.train}
    for side in (result.validation, result.new_items, result.new_phrasings, result.new_clusters):
        assert not any(one.item in trained[0] or one.prompt in trained[1] for one in side)
    levels = defaultdict(set)
    for one in result.train:
        levels[one.cluster, one.task].add(one.phrasing)
    assert not any(one.phrasing in levels[one.cluster, one.task] for one in result.new_phrasings)
    assert not {one.cluster for one in result.train} & set(held)


def test_real_data_is_split_without_a_leak():
    path = DATA / "t0_train.parquet"
    if not path.exists():
        pytest.skip(f"no {path}: set TUNESMITH_DATA to the folder of the real data")
    rows = read_source("t0", path, sample=3000, seed=0).rows
    result = split(rows, clusters=["paraphrase"], phrasings=0.1, items=0.05, validation=0.02, seed=0)
    assert sum(map(len, result.places.values())) + len(result.drops) == 3000
    trained = {one.prompt[0].content for one in result.train}
    assert all(result.places.values())
    for name, side in result.places.items():
        assert name == "train" or not any(one.prompt[0].content in trained for one in side)
