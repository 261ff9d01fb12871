"""Duplicates against a brute-force search with sets of tuples of words."""

import random
import re
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.base.conversation import Conversation, Message
from tunesmith.base.errors import DataError
from tunesmith.data.duplicates.dedup import deduplicate, largest_groups, remove_known
from tunesmith.data.rows import Rows


def row(id, instruction, response="Yes.", **more):
    return Conversation(id, (Message("user", instruction), Message("assistant", response)), id.split(":")[0], **more)


def ngrams(text, size):
    words = re.findall(r"\w+", text.casefold())
    return {tuple(words[k : k + size]) for k in range(max(1, len(words) - size + 1))} if words else set()


def jaccard(a, b):
    return len(a & b) / len(a | b) if a or b else 1.0


def groups_by_brute_force(rows, threshold, size):
    """Connected components of pairs in which both parts are alike, by ids."""
    sets = {one.id: [ngrams(message.content, size) for message in one.messages] for one in rows}
    groups = {id: {id} for id in sets}
    for i, j in combinations(sets, 2):
        if min(jaccard(a, b) for a, b in zip(sets[i], sets[j], strict=True)) >= threshold:
            joined = groups[i] | groups[j]
            groups |= dict.fromkeys(joined, joined)
    return {frozenset(group) for group in groups.values()}


def made(count, seed, words=400, length=(20, 60)):
    """Rows of which some are edited copies of others, in either part."""
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        if rows and draw.random() < 0.5:
            texts = [message.content.split() for message in draw.choice(rows).messages]
            rate = draw.choice((0, 0.02, 0.1))
            texts = [[f"w{draw.randrange(words)}" if draw.random() < rate else w for w in text] for text in texts]
        else:
            texts = [[f"w{draw.randrange(words)}" for _ in range(draw.randint(*length))] for _ in range(2)]
        rows.append(row(f"s:{number + 1}", *(" ".join(text) for text in texts)))
    return rows


@pytest.mark.parametrize("threshold", [0.4, 0.7, 0.9])
@pytest.mark.parametrize("workers", [1, 2])
def test_groups_are_those_of_brute_force(threshold, workers):
    rows = made(300, 4)
    expected = groups_by_brute_force(rows, threshold, 3)
    found = deduplicate(rows, exact=False, near=threshold, ngram=3, workers=workers)
    # The bands may miss one pair in two thousand; there are fewer here.
    assert {rows[place].id for place in found.kept} == {longest(group, rows) for group in expected}
    assert len(found.kept) + len(found.drops) == len(rows)
    sizes = found.groups["near_duplicate"]
    assert sum(size * number for size, number in sizes.items()) == sum(len(g) for g in expected if len(g) > 1)
    by_id = {one.id: one for one in rows}
    for drop in found.drops:
        kept = re.match(r"(\S+) was kept instead: similarity ([\d.]+)", drop.detail)
        assert next(group for group in expected if drop.row in group) >= {kept[1]}
        pair = [[ngrams(m.content, 3) for m in by_id[id].messages] for id in (drop.row, kept[1])]
        true = min(jaccard(a, b) for a, b in zip(*pair, strict=True))
        assert float(kept[2]) == pytest.approx(true, abs=0.0006)
        assert ("linked by rows between" in drop.detail) == (true < threshold)


def longest(group, rows):
    by_id = {one.id: one for one in rows}
    return min(
        group, key=lambda id: (-sum(len("".join(m.content.split())) for m in by_id[id].messages), int(id.split(":")[1]))
    )


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(40)), st.sampled_from(["longest", "first", "best"]), st.sampled_from([0.5, 0.8]))
def test_order_of_rows_changes_nothing(order, keep, near):
    rows = [
        row(one.id, *(m.content for m in one.messages), extra={"score": number % 7})
        for number, one in enumerate(made(40, 9))
    ]
    options = {"near": near, "ngram": 2, "semantic": 0.9, "keep": keep, "score": "score"}
    expected = {(drop.row, drop.reason, drop.detail) for drop in deduplicate(rows, **options).drops}
    found = deduplicate([rows[place] for place in order], **options)
    assert {(drop.row, drop.reason, drop.detail) for drop in found.drops} == expected and expected
    assert found.kept.tolist() == sorted(found.kept.tolist())


def test_exact_evens_out_case_white_space_and_unicode_forms():
    rows = [
        row("a:1", "What is ﬁne?", "It  is."),
        row("a:2", "what IS\n fine?", "It is."),
        row("a:3", "What is fine", "It is."),
        row("a:4", "What is fine?", "It was."),
    ]
    found = deduplicate(rows, near=None)
    assert [(drop.row, drop.reason) for drop in found.drops] == [("a:1", "exact_duplicate")]  # ﬁ is one character
    assert found.drops[0].detail == "a:2 was kept instead: the same text"
    assert [drop.row for drop in deduplicate(rows, near=None, over="response").drops] == ["a:1", "a:3"]
    assert [drop.row for drop in deduplicate(rows, near=None, over="instruction", keep="first").drops] == ["a:2", "a:4"]


def test_both_asks_both_parts_to_be_alike():
    passage = " ".join(f"word{k}" for k in range(200))
    rows = [
        row("a:1", f"{passage} Who?", "Ann"),
        row("a:2", f"{passage} Who?", "Bob"),
        row("a:3", f"{passage} who", "ann"),
    ]
    assert [drop.row for drop in deduplicate(rows).drops] == ["a:3"]
    assert [drop.row for drop in deduplicate(rows, over="instruction").drops] == ["a:2", "a:3"]


def test_signs_of_arithmetic_are_words():
    rows = [row("a:1", "What is 2 + 3?", "5"), row("a:2", "What is 2 - 3?", "5"), row("a:3", "What is 2+3", "5")]
    assert [drop.row for drop in deduplicate(rows).drops] == ["a:3"]


def test_what_is_kept():
    rows = [
        row("b:10", "One two three four five six", "seven", extra={"q": 0.5}),
        row("b:9", "One two three four five six!", "seven", extra={"q": "0.9"}),
        row("a:11", "One two three four five six!!", "seven", extra={"q": "unknown"}),
    ]

    def kept(**options):
        return [rows[place].id for place in deduplicate(rows, **options).kept]

    assert kept() == ["a:11"]
    assert kept(keep="first", sources=["b", "a"]) == ["b:9"]
    assert kept(keep="first", sources=["a", "b"]) == kept(keep="first") == ["a:11"]
    assert kept(keep="best", score="q") == ["b:9"]
    with pytest.raises(DataError, match="no row has a number"):
        kept(keep="best", score="quality")


def test_a_row_kept_by_one_way_and_dropped_by_the_next_is_told():
    long = " ".join(f"w{k}" for k in range(60))
    rows = [row("a:1", f"{long} end here now"), row("a:2", f"{long} end"), row("a:3", f"{long}  END")]
    found = deduplicate(rows, near=0.8)
    # Of a:1's 59 instruction 5-grams a:2 has 57.
    assert [(drop.row, drop.detail) for drop in found.drops] == [
        ("a:2", "a:1 was kept instead: similarity 0.966"),
        ("a:3", "a:1 was kept instead: the same text as a:2, which went for it too"),
    ]


def test_many_copies_and_rows_without_words():
    rows = [row(f"a:{n}", "The same question each time, of several words", "!" * (n % 3)) for n in range(500)]
    rows += [row(f"b:{n}", "", "") for n in range(3)] + [
        Conversation.from_text(f"t:{n}", "Plain text.") for n in (1, 2)
    ]
    found = deduplicate(rows)
    assert len(found.drops) == 500 and {rows[place].id.split(":")[0] for place in found.kept} == {"a", "b", "t"}
    assert len(deduplicate(rows, over="instruction").drops) == 499
    assert deduplicate([]).kept.tolist() == []


def test_rows_in_a_file_and_a_reference(tmp_path):
    rows = made(60, 2)
    with Rows(tmp_path / "rows", in_memory=5) as held:
        for one in rows:
            held.append(one)
        assert deduplicate(held, workers=2).drops == deduplicate(rows).drops
        known = [row("r:1", *(m.content.upper() for m in rows[7].messages)), made(1, 99)[0]]
        found = remove_known(held, known, near=0.7, ngram=3)
    sets = [[ngrams(m.content, 3) for m in one.messages] for one in rows]
    expected = [
        number
        for number, parts in enumerate(sets)
        if min(jaccard(a, b) for a, b in zip(parts, sets[7], strict=True)) >= 0.7
    ]
    assert [int(drop.row[2:]) - 1 for drop in found.drops] == expected and 7 in expected
    assert {drop.reason for drop in found.drops} == {"in_reference"}
    assert all(drop.detail.startswith("r:1 of the reference, similarity") for drop in found.drops)
    assert sorted([*found.kept.tolist(), *expected]) == list(range(60))


def test_a_reference_is_found_among_copies_of_one_signature():
    rows = [row(f"a:{n}", "Some words that are always the same ones " + "." * n) for n in range(5)]
    assert len(remove_known(rows, [rows[0]], exact=False).drops) == 5
    assert not remove_known(rows, [row("r:1", "Something else altogether")]).drops
    assert not remove_known(rows, []).drops and not remove_known([], rows).drops


@pytest.mark.parametrize("options", [{"near": 0.0}, {"near": 1.5}, {"semantic": -1.0}, {"ngram": 0}])
def test_thresholds_out_of_range_are_refused(options):
    with pytest.raises(DataError, match="Give"):
        deduplicate([], **options)


def test_the_largest_groups_are_shown_with_the_row_that_was_kept():
    chance = random.Random(5)
    texts = [" ".join(str(chance.random()) for _ in range(20)) for _ in range(6)]
    rows = [
        row(f"a:{number}", texts[number % 6] if number < 24 or number % 6 else "x" * number) for number in range(60)
    ]
    found = deduplicate(rows, near=None)
    groups = largest_groups(rows, found, groups=4)
    by_text: dict[str, list[str]] = {}
    for each in rows:
        by_text.setdefault(each.messages[0].content + each.response, []).append(each.id)
    sizes = sorted((len(ids) for ids in by_text.values() if len(ids) > 1), reverse=True)
    assert [group["size"] for group in groups] == sizes[:4]
    kept = {rows[place].id for place in found.kept.tolist()}
    for group in groups:
        ids = next(ids for ids in by_text.values() if group["kept"]["row"] in ids)
        assert group["kept"]["row"] in kept
        assert {other["row"] for other in group["others"]} <= set(ids) - kept
        assert len(group["others"]) == min(3, group["size"] - 1)
