import os
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.base.conversation import Conversation, Message
from tunesmith.base.errors import UserError
from tunesmith.data.sources.read import read_source
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
    assert 25 <= len(held) <= 55  # 40 on average
    assert len(result.notes) == 1 and result.notes[0].endswith("…: fewer than 20 items each")
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
    assert single.startswith("no items are held out of single 12, single 13") and single.count("single") < 30
    assert single.endswith("…: fewer than 4 items each")
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
    with pytest.raises(UserError, match="fold 3 of 3 folds does not exist: they are 0 to 2"):
        split(rows, folds=(3, 3), seed=0)
    with pytest.raises(UserError, match="3 folds need 3 items or more, and there are 2"):
        split(rows, folds=(3, 0), seed=0)
    with pytest.raises(UserError, match="'code', which is not held out"):
        split(rows, clusters=["math"], relatives={"code": ["math"]}, seed=0)
    with pytest.raises(UserError, match="Did you mean 'code'"):
        split(rows, clusters=["math"], relatives={"math": ["cde"]}, seed=0)
    with pytest.raises(UserError, match="none is left"):
        split(rows, clusters=["math"], relatives={"math": ["code"]}, seed=0)
    assert "names its phrasing" in split(rows, phrasings=0.5, seed=0).notes[0]


def test_what_gives_a_held_out_cluster_away_is_not_trained():
    rows = [row(n, cluster=("paraphrase", "NLI", "other")[n % 3]) for n in range(30)]
    plain = split(rows, clusters=["paraphrase"], seed=0)
    assert not plain.drops and "NLI is trained while paraphrase is held out" in plain.notes[0]
    flan = split(rows, clusters=["paraphrase"], relatives="flan", seed=0)
    assert {one.cluster for one in flan.train} == {"other"} and len(flan.new_clusters) == 10
    assert {drop.row for drop in flan.drops} == {f"s:{n}" for n in range(1, 30, 3)}
    assert {(drop.reason, drop.detail) for drop in flan.drops} == {
        ("related_to_a_held_out_cluster", "NLI gives away paraphrase, which is held out")
    }
    both = split(rows, clusters=["paraphrase", "NLI"], relatives="flan", seed=0)
    assert not both.drops and len(both.new_clusters) == 20
    given = split(rows, clusters=["NLI"], relatives={"NLI": ["other"]}, seed=0)
    assert {one.cluster for one in given.train} == {"paraphrase"} and len(given.drops) == 10
    assert not split(rows, clusters=["NLI"], relatives={}, seed=0).notes


@pytest.mark.parametrize("of", [2, 5, 7])
def test_folds_cut_the_items_into_parts(of):
    rng = np.random.default_rng(of)
    rows = [row(n, cluster=f"c{n % 3}", item=f"i{n // 6}" if n < 60 else "") for n in range(300)]
    rows += [row(f"few {n}", cluster="few") for n in range(3)]
    lengths = rng.integers(1, 5000, len(rows)).astype("f8")
    alike = np.where(rng.random(len(rows)) < 0.2, rng.integers(0, 20, len(rows)), 1000 + np.arange(len(rows)))
    found = [split(rows, folds=(of, fold), alike=alike, lengths=lengths, seed=1) for fold in range(of)]
    held = [ids(one.new_items) for one in found]
    assert sorted(id for fold in held for id in fold) == sorted(one.id for one in rows)
    assert all(held) and all(not one.drops for one in found)
    assert all(ids(one.train) == ids(rows) - fold for one, fold in zip(found, held, strict=True))
    even = [len(split(rows[60:], folds=(of, fold), lengths=lengths[60:], seed=1).new_items) for fold in range(of)]
    assert sum(even) == 243 and max(even) - min(even) <= 3 * 4 + 1  # one a stratum and cluster
    if of > 3:
        assert all(f"fewer than {of} items in few: not every fold measures them" in one.notes for one in found)


def test_near_duplicates_stay_on_one_side():
    rows = [row(n, cluster=f"c{n % 2}") for n in range(1000)]
    alike = np.arange(1000) // 4  # groups of two items in each cluster
    result = split(rows, items=0.1, validation=0.1, alike=alike, seed=0)
    sides = [{int(one.id[2:]) // 4 for one in side} for side in (result.train, result.validation, result.new_items)]
    assert all(sides) and not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])
    assert len(result.new_items) == 100 and len(result.validation) == 88 and not result.drops  # 45 each, in pairs

    phrased = [row(n, phrasing=f"p{n % 4}") for n in range(400)]
    result = split(phrased, phrasings=0.25, alike=np.arange(400) // 4, seed=0)
    assert len(result.drops) == 100 and not result.new_phrasings  # each was asked in trained words too


def test_a_chain_of_near_duplicates_takes_no_cluster_with_it():
    rows = [row(n, cluster="chain" if n < 300 else "c") for n in range(600)]
    alike = np.where(np.arange(600) < 290, 0, np.arange(600))
    for seed in range(5):
        result = split(rows, items=0.1, alike=alike, seed=seed)
        assert not [one for one in result.new_items if int(one.id[2:]) < 290]
        assert Counter(one.cluster for one in result.new_items) == {"chain": 10, "c": 30}
    swallowed = split(rows, items=0.1, alike=np.where(np.arange(600) < 300, 0, np.arange(600)), seed=0)
    assert {one.cluster for one in swallowed.new_items} == {"c"}
    assert "no items are held out of chain: nearly all of their rows are near-duplicates" in swallowed.notes[0]


def test_held_out_items_are_as_long_as_the_others():
    rng = np.random.default_rng(0)
    rows = [row(n, cluster=f"c{n % 2}") for n in range(4000)]
    lengths = np.exp(rng.normal(6, 2, 4000))
    for seed in range(5):
        result = split(rows, items=0.02, lengths=lengths, seed=seed)
        assert len(result.new_items) == 80
        for cluster in ("c0", "c1"):
            some = lengths[[n for n in range(4000) if rows[n].cluster == cluster]]
            held = [lengths[int(one.id[2:])] for one in result.new_items if one.cluster == cluster]
            quarter = np.searchsorted(np.quantile(some, [0.25, 0.5, 0.75]), held)
            assert np.bincount(quarter).tolist() == [10, 10, 10, 10]
    more, longer = [*rows, row("new", cluster="c0")], np.append(lengths, 300.0)
    moved = ids(result.new_items) ^ ids(split(more, items=0.02, lengths=longer, seed=4).new_items)
    assert len(moved) <= 6  # near the borders of strata
    order = rng.permutation(4000)
    turned = split([rows[n] for n in order], items=0.02, lengths=lengths[order], seed=4)
    assert ids(turned.new_items) == ids(result.new_items)


small = st.integers(0, 3)


@settings(deadline=None)  # machines may be busy
@given(
    st.lists(st.tuples(small, small, small, st.integers(0, 8), st.integers(0, 8)), min_size=1, max_size=60),
    st.sampled_from([0.0, 0.1, 0.5]),
    st.sampled_from([0.0, 0.1, 0.5]),
    st.sampled_from([0.0, 0.2]),
    st.integers(0, 5),
    st.booleans(),
)
def test_every_row_has_one_place_and_nothing_held_out_is_trained(drawn, phrasings, items, validation, seed, linked):
    rows = [
        row(n, f"prompt {prompt}", f"c{c}", f"t{t}", f"p{p}" if p else "", f"i{item}" if item else "")
        for n, (c, t, p, item, prompt) in enumerate([(0, 0, 0, 0, 0), *drawn])
    ]
    held = ["c3"] if any(one.cluster == "c3" for one in rows) else []
    alike = np.array([n if n % 3 else n // 9 for n in range(len(rows))]) if linked else None
    lengths = np.array([float(n % 7) for n in range(len(rows))]) if linked else None
    given = {"items": items} if seed else {"folds": (2, 1)} if len(rows) > 60 else {}
    result = split(
        rows,
        clusters=held,
        phrasings=phrasings,
        validation=validation,
        alike=alike,
        lengths=lengths,
        seed=seed,
        **given,
    )
    fates = [one.id for side in result.places.values() for one in side] + [drop.row for drop in result.drops]
    assert sorted(fates) == sorted(one.id for one in rows)

    trained = {one.item for one in result.train} - {""}, {one.prompt for one in result.train}
    for side in (result.validation, result.new_items, result.new_phrasings, result.new_clusters):
        assert not any(one.item in trained[0] or one.prompt in trained[1] for one in side)
    if alike is not None:
        group = {one.id: number for one, number in zip(rows, alike.tolist(), strict=True)}
        near = {group[one.id] for one in result.train}
        assert not any(group[one.id] in near for name, side in result.places.items() if name != "train" for one in side)
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
