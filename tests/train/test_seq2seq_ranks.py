"""Encoder-decoders over two processes: rows of unequal pairs, each layer in parts, the gradient of one process."""

import copy

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from tiny import tiny_t5

from tunesmith.model.losses import PackedRow, supervised_loss
from tunesmith.tokens.batches import make_batch
from tunesmith.tokens.encoded import Encoded
from tunesmith.train.sharding import shard

PROMPTS = ([3, 40], [5, 6, 7, 90, 91, 200])  # the first rank makes two groups of these, the second more


def row_of(rank):
    rng = np.random.default_rng(rank)
    drawn = [Encoded.from_spans(rng.integers(3, 50, n + 4).astype(np.int32), ((1, n, n + 4),)) for n in PROMPTS[rank]]
    return PackedRow.of(make_batch(drawn, range(len(drawn))), "cpu")


def compare(rank, store):
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    model = tiny_t5(50)
    alone = copy.deepcopy(model)
    shard(model, supervised_loss)(model, row_of(rank)).backward()
    sum(supervised_loss(alone, row_of(other)) for other in range(2)).backward()
    for (name, parameter), other in zip(model.named_parameters(), alone.parameters(), strict=True):
        difference = (parameter.grad.full_tensor() - other.grad).norm()
        assert difference <= 1e-5 * other.grad.norm(), name
    dist.destroy_process_group()


@pytest.mark.slow
def test_ranks_with_other_groups_of_pairs_gather_layers_equally_often(tmp_path):
    torch.multiprocessing.spawn(compare, (str(tmp_path / "store"),), nprocs=2)
