"""A small training as torchrun starts it: python -m torch.distributed.run ... worker.py FOLDER KEY=VALUE ..."""

import errno
import json
import os
import signal
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

warnings.simplefilter("ignore")
sys.path.insert(0, str(Path(__file__).parent.parent))

from tiny import tiny_llama  # noqa: E402

from tunesmith.base.errors import TunesmithError  # noqa: E402
from tunesmith.base.ranks import joined  # noqa: E402
from tunesmith.evaluate.language import response_losses  # noqa: E402
from tunesmith.model.adapters import prepare_method  # noqa: E402
from tunesmith.tokens.batches import plan_epochs  # noqa: E402
from tunesmith.tokens.encoded import Encoded  # noqa: E402
from tunesmith.train import checkpoint, loop, trainer  # noqa: E402
from tunesmith.train.settings import TrainSettings  # noqa: E402
from tunesmith.train.sharding import trained_weights  # noqa: E402

SETTINGS = TrainSettings(learning_rate=1e-2, tokens_per_step=256, tokens_per_batch=64, weight_decay=0.1, warmup=0.0)


def sequences():
    rng = np.random.default_rng(0)
    for length in rng.integers(6, 30, size=70):
        ids = (rng.integers(61) + np.arange(length)) % 61
        yield Encoded(ids.astype(np.int32), np.arange(length) >= length // 2)


def refused(*_):
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def measured(model, rows):
    found = response_losses(model, rows, batch_tokens=64)
    return {"loss": float(found.nats.sum() / found.tokens.sum()), "tokens": int(found.tokens.sum())}


def train(folder, ranks=None, method="full", die=None, **changes):
    """die: (rank, step, how): that rank is killed, stopped or asked to stop as that step is done, or has an error
    of its own, or from then on its disk is broken."""
    model, store = tiny_llama(61, tie_word_embeddings=True), list(sequences())
    if method != "full":
        model = prepare_method(model, method, rank=4)
    settings = replace(SETTINGS, **changes)
    plan = plan_epochs(
        lambda epoch: np.random.default_rng(epoch).permutation(len(store)),
        np.array([len(sequence) for sequence in store]),
        tokens_per_batch=settings.tokens_per_batch,
        batches_per_step=settings.batches_per_step,
        epochs=2,
        seed=0,
    )
    if die and ranks and ranks.rank == die[0]:
        counted = trainer.Trainer.step_done

        def dying(self, *facts):
            counted(self, *facts)
            if self.done.step == die[1] and die[2] == "disk":
                self._checkpoints.finish()  # what is being written beside gets there
                checkpoint.write_tensors = refused
            elif self.done.step == die[1] and die[2] == "err":
                raise RuntimeError("shapes 3 and 4 do not match")
            elif self.done.step == die[1] and die[2] == "stopped":
                raise KeyboardInterrupt  # as where a request comes before this rank has begun to train
            elif self.done.step == die[1]:
                os.kill(os.getpid(), {"kill": signal.SIGKILL, "stop": signal.SIGSTOP, "ask": signal.SIGTERM}[die[2]])

        trainer.Trainer.step_done = dying
    watching = (
        loop.Watching({"rows": lambda model: measured(model, [[one] for one in store[:9]])})
        if settings.evaluate_every
        else None
    )
    result = loop.train(model, store, plan, settings, folder, ranks=ranks, watching=watching)
    return result, trained_weights(model)


def main(folder, *given):
    options = {key: json.loads(value) for key, value in (pair.split("=", 1) for pair in given)}
    try:
        with joined() as ranks:
            _, weights = train(Path(folder), ranks, **options)
            if ranks.is_main:
                save_file(weights, Path(folder) / "weights.safetensors")
            ranks.meet("end")
    except TunesmithError as error:
        (Path(folder) / f"error-{os.environ['RANK']}.txt").write_text(str(error))
        raise SystemExit(error.exit_code) from error


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*sys.argv[1:])
