"""What is computed in groups over two processes: unequal rows, each layer in parts, the gradient of one process."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from tiny import tiny_llama, tiny_t5

from tunesmith.model.adapters import prepare_method
from tunesmith.model.losses import PackedRow, supervised_loss
from tunesmith.tokens.batches import make_batch
from tunesmith.tokens.encoded import Encoded
from tunesmith.train.sharding import shard

PROMPTS = ([3, 40], [5, 6, 7, 90, 91, 200])  # the first rank makes two groups of these, the second more


def row_of(rank):
    rng = np.random.default_rng(rank)
    drawn = [Encoded.from_spans(rng.integers(3, 50, n + 4).astype(np.int32), ((1, n, n + 4),)) for n in PROMPTS[rank]]
    return PackedRow.of(make_batch(drawn, range(len(drawn))), "cpu")


def silent_row():
    batch = make_batch([Encoded.from_spans(np.arange(3, 9, dtype=np.int32), ((1, 2, 6),))], [0])
    return PackedRow.of(replace(batch, supervised=np.zeros_like(batch.supervised)), "cpu")


def compare(rank, store, kind, second):
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    model = tiny_t5(50) if kind == "t5" else prepare_method(tiny_llama(50), kind, tokens=3)
    alone = copy.deepcopy(model)
    rows = [row_of(0), row_of(1) if second == "more" else silent_row()]
    shard(model, supervised_loss)(model, rows[rank]).backward()
    sum(supervised_loss(alone, row) for row in rows).backward()
    for (name, parameter), other in zip(model.named_parameters(), alone.parameters(), strict=True):
        if other.grad is None:
            continue
        difference = (parameter.grad.full_tensor() - other.grad).norm()
        assert difference <= 1e-5 * other.grad.norm(), name
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["t5", "prefix"])
@pytest.mark.parametrize("second", ["more", "nothing"])
def test_ranks_with_other_groups_gather_layers_equally_often(tmp_path, kind, second):
    torch.multiprocessing.spawn(compare, (str(tmp_path / "store"), kind, second), nprocs=2)
