"""Which rows are trained on, against a plain count over the store."""

import numpy as np

from tunesmith.pipeline.mixing import REPLAY, members_of, summary_of
from tunesmith.tokens.batches import plan_epochs
from tunesmith.tokens.encoded import Encoded
from tunesmith.tokens.store import TokenStore


def test_members_and_counts(tmp_path):
    rng = np.random.default_rng(0)
    entries = []
    for row in range(200):
        source = ("a", "b: c", REPLAY)[row % 3]
        group = source if source == REPLAY else f"g{row % 5}"
        for _ in range(rng.integers(1, 4)):
            length = int(rng.integers(2, 30))
            supervised = np.arange(length) > length // 2
            entries.append((Encoded(np.arange(length, dtype=np.int32), supervised), f"{source}:{row}", group))
    store = TokenStore.write(tmp_path / "store", entries, {})
    held_out = [f"a:{row}" for row in range(0, 200, 6)]
    members = members_of(store, held_out)

    rows = {}
    for index, (sequence, row, group) in enumerate(entries):
        if row not in held_out:
            rows.setdefault(row, (group, []))[1].append((index, len(sequence)))
    assert members.names.to_pylist() == list(rows)
    assert members.tokens.tolist() == [sum(length for _, length in parts) for _, parts in rows.values()]
    wanted = [3, 0, 3, len(rows) - 1]
    expected = [index for number in wanted for index, _ in list(rows.values())[number][1]]
    assert members.sequences(np.array(wanted)).tolist() == expected
    assert members.sequences(np.array([], dtype=np.int64)).tolist() == []
    numbers = {group: [n for n, (other, _) in enumerate(rows.values()) if other == group] for group, _ in rows.values()}
    assert members.replayed.tolist() == numbers.pop(REPLAY)
    assert {group: found.tolist() for group, found in members.groups.items()} == numbers

    def order(epoch):
        return np.arange(len(store))

    plan = plan_epochs(order, store.lengths, tokens_per_batch=64, batches_per_step=1, epochs=1, seed=0)
    summary = summary_of(store, plan, 64)
    for kind, name_of in (("sources", lambda entry: entry[1].rpartition(":")[0]), ("clusters", lambda entry: entry[2])):
        for name, found in summary[kind].items():
            some = [entry for entry in entries if name_of(entry) == name]
            assert found == {
                "rows": len({row for _, row, _ in some}),
                "tokens": sum(len(sequence) for sequence, _, _ in some),
                "supervised": sum(int(sequence.supervised.sum()) for sequence, _, _ in some),
            }
        assert set(summary[kind]) == {name_of(entry) for entry in entries}
