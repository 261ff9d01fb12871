"""What a process that trains all weights imports, and holds until it ends."""

import json
import subprocess
import sys

from tunesmith.tokens.encoded import Encoded
from tunesmith.tokens.store import TokenStore

SCRIPT = """
import json, sys
from pathlib import Path
import numpy as np
from tunesmith.model.adapters import prepare_method
from tunesmith.model.load import load_base
from tunesmith.tokens.batches import plan_epochs
from tunesmith.tokens.many import encode_many
from tunesmith.tokens.store import TokenStore
from tunesmith.train.loop import train
from tunesmith.train.settings import TrainSettings

def of_others():
    libraries = ("bitsandbytes", "daft", "datasets", "fastokens", "lm_eval", "pandas", "peft", "sacrebleu", "sklearn")
    return [name for name in libraries if name in sys.modules]

folder = Path(sys.argv[1])
model, store = prepare_method(load_base("pocket").model, "full"), TokenStore.open(folder / "store")
settings = TrainSettings(tokens_per_batch=8, tokens_per_step=8)
plan = plan_epochs(
    lambda epoch: np.arange(len(store)), store.lengths, tokens_per_batch=8, batches_per_step=1, epochs=1, seed=0
)
steps = train(model, store, plan, settings, folder / "out").step
trained = of_others()
import tunesmith.pipeline
print(json.dumps([steps, trained, of_others()]))
"""


def test_full_training_imports_nothing_that_only_other_methods_or_stages_need(tmp_path):
    sequences = [(Encoded.from_spans([1, 2, 3, 4, 5], ((0, 2, 5),)), f"row:{number}", "all") for number in range(2)]
    TokenStore.write(tmp_path / "store", sequences, {})
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [2, [], []]
