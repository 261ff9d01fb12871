"""Plans: facts of prepared data, memory of named GPUs, warnings, and what running out of memory says."""

import json
import mmap

import pytest
import torch
from transformers import LlamaConfig

from tunesmith.base.errors import TunesmithError, UserError
from tunesmith.base.files import read_json
from tunesmith.pipeline.gpus import GIB, device_named, process_memory, watch_memory
from tunesmith.pipeline.planning import Asked, explaining_memory, foreseen, plan
from tunesmith.pipeline.preparing import Prepared
from tunesmith.recipe import load_recipe

SMALL = """
base: {base}
data: {{sources: [{{pocket: 60, name: small}}], hold_out: {{items: 0}}}}
train: {{epochs: 2, max_length: 64, tokens_per_batch: 512, tokens_per_step: 1024, learning_rate: 6.0e-4}}
"""


@pytest.fixture
def load(tmp_path):
    def load(*overrides, base="pocket"):
        (tmp_path / "small.yaml").write_text(SMALL.format(base=base))
        return load_recipe(str(tmp_path / "small.yaml"), overrides)

    return load


def planned(recipe, gpu=None, **asked):
    return foreseen(recipe, device_named(gpu), Asked(gpu, data=False, **asked))


def test_a_plan_tells_what_the_run_will_do_and_leaves_it_alone(load, tmp_path, capsys):
    assert plan(load(), tmp_path / "run", Asked(as_json=True)) == 0
    found = json.loads(capsys.readouterr().out)
    drops = read_json(tmp_path / "run" / "ledger" / "steps.json")[-1]["reasons"]
    tokens = read_json(tmp_path / "run" / "tokens" / "summary.json")
    assert found["data"]["tokens"] == 2 * tokens["tokens"]
    assert found["data"]["supervised"] == 2 * tokens["supervised"]
    assert found["data"]["steps"] == -(-tokens["packing"]["rows"] // 2)
    assert found["data"]["too_long"] == drops["too_long"] > 0
    assert found["data"]["longest_99"] > 64
    assert found["parameters"] == {"all": 3_148_224, "trained": 3_148_224}
    assert found["memory"]["weights"] >= 4 * 3_148_224 and found["memory"]["optimizer"] == 8 * 3_148_224
    time = found["time"]
    assert time["seconds"] == pytest.approx(found["data"]["tokens"] / time["tokens_per_second"])
    assert "measured here" in time["how"]
    assert found["memory"]["taken"] > found["memory"]["weights"] + found["memory"]["optimizer"]
    said = " ".join(warning["what"] for warning in found["warnings"])
    assert "optimizer step" in said and "longer than max_length" in said and "learning_rate" not in said
    assert not any((tmp_path / "run" / part).exists() for part in ("model", "checkpoints", "metrics.jsonl"))
    again = plan(load(), tmp_path / "run", Asked(trial=False))
    out = capsys.readouterr().out
    assert again == 0 and "time is not known" in out
    assert max(map(len, out.splitlines())) <= 80


def test_memory_that_was_taken_since():
    most = watch_memory()
    before = process_memory()
    with mmap.mmap(-1, 64 << 20) as pages:  # not from a heap, which may have so much left
        for _ in range(64):
            pages.write(bytes(1 << 20))
    taken = most()
    assert taken is None or 0.9 < (taken - before) / (64 << 20) < 1.5


def test_without_a_trial_the_range_of_what_is_taken_is_told(load):
    for method, words in (("full", "1.5 to 1.9 times"), ("lora", "2.6 to 4.8 times")):
        assert words in " ".join(planned(load(f"train.method={method}").recipe)["assumed"])
    assert "times" not in " ".join(planned(load("train.low_memory=true").recipe)["assumed"])


def test_without_data_rows_are_taken_to_be_full(load):
    found = planned(load("train.method=lora", "train.precision=bf16").recipe, "H100", processes=2)
    assert found["data"] is None and found["time"]["seconds"] is None
    assert "40% of the peak of 989" in found["time"]["how"]
    assert found["step"]["rows_per_process"] == 1
    assert "no data was read" in found["assumed"][0]


def test_memory_beyond_a_gpu_names_what_fits(load, tmp_path):
    LlamaConfig(
        vocab_size=32_000,
        hidden_size=4096,
        intermediate_size=11_008,
        num_hidden_layers=4,
        num_attention_heads=32,
        num_key_value_heads=32,
    ).save_pretrained(tmp_path / "large")
    recipe = load("train.learning_rate=2.0e-5", base=tmp_path / "large").recipe
    found = planned(recipe, "T4")
    assert found["memory"]["total"] > 14.6 * GIB
    (warning,) = found["warnings"]
    assert "does not fit in the 14.6 GiB of T4" in warning["what"]
    assert "method: lora" in warning["remedy"]
    assert planned(recipe, "H100")["warnings"] == []
    with_lora = recipe.model_copy(update={"train": recipe.train.model_copy(update={"method": "lora"})})
    assert planned(with_lora, "T4")["memory"]["total"] < 14.6 * GIB


def test_rows_that_processes_cannot_share(load, tmp_path):
    with pytest.raises(UserError, match="Nearest that they can: 1536"):
        plan(load(), tmp_path / "run", Asked(processes=3, data=False))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "gib"), [("H100", 79.1), ("a100-80gb", 79.1), ("RTX-4090", 23.5), ("NVIDIA L4", 22.0), ("v100 32", 31.7)]
)
def test_gpus_by_name(name, gib):
    device = device_named(name)
    assert device.memory == round(gib * GIB) and not device.here
    assert device.peak("fp16") > device.peak("fp32")


def test_unknown_gpus_are_the_users_mistake():
    with pytest.raises(UserError, match="A100 40GB or A100 80GB"):
        device_named("A100")
    with pytest.raises(UserError, match="Did you mean H100"):
        device_named("H1000")
    with pytest.raises(UserError, match="not in the table"):
        device_named("A10")  # which is no A100


def test_out_of_memory_says_what_to_change(load, tmp_path, capsys):
    from tunesmith.model.load import load_tokenizer
    from tunesmith.pipeline.folder import RunFolder
    from tunesmith.pipeline.preparing import prepare, tokenizer_of

    loaded = load()
    folder = RunFolder.open(tmp_path / "run", loaded)
    with folder.running():
        prepared: Prepared = prepare(folder, tokenizer_of(loaded.recipe, load_tokenizer))
    message, words = "DefaultCPUAllocator: can't allocate memory", r"ran out of memory.*GiB.*activation_checkpointing"
    for error in (torch.OutOfMemoryError("CUDA out of memory"), RuntimeError(message)):
        with pytest.raises(TunesmithError, match=words), explaining_memory(loaded.recipe, prepared):
            raise error
    with pytest.raises(RuntimeError, match="another"), explaining_memory(loaded.recipe, prepared):
        raise RuntimeError("another")
