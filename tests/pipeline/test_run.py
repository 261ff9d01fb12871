"""The whole road on a few rows: what a run leaves behind, what it does not do twice, and what it refuses."""

import json
import shutil

import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tunesmith.base.errors import LimitBroken, TunesmithError, UserError
from tunesmith.model.load import base_path
from tunesmith.pipeline import inspect, run
from tunesmith.tokens.store import TokenStore


def read(path):
    return json.loads(path.read_text())


def test_every_row_is_accounted_for(finished):
    steps = read(finished / "ledger/steps.json")
    assert all(step["read"] == step["kept"] + step["dropped"] for step in steps)
    places = pq.read_table(finished / "ledger/places.parquet").to_pydict()
    dropped = set(pq.read_table(finished / "ledger/drops.parquet")["row"].to_pylist())
    fates = dict(zip(places["row"], places["place"], strict=True))
    assert {f"small:{number}" for number in range(1, 241)} <= fates.keys() | dropped
    assert not fates.keys() & dropped
    assert set(fates.values()) == {"train", "new_items", "new_phrasings", "new_clusters", "replay", "forgetting"}


def test_no_held_out_row_and_no_measured_text_is_trained(finished):
    from tunesmith.model.load import load_tokenizer
    from tunesmith.pipeline.folder import RunFolder
    from tunesmith.pipeline.preparing import prepare, tokenizer_of
    from tunesmith.recipe import load_recipe

    loaded = load_recipe(str(finished))
    folder = RunFolder.open(finished, loaded)
    prepared = prepare(folder, tokenizer_of(loaded.recipe, load_tokenizer))
    trained = {
        prepared.store.row_ids[i]
        for step in range(prepared.plan.steps)
        for row in prepared.plan.step(step)
        for i in row
    }
    places = pq.read_table(finished / "ledger/places.parquet").to_pydict()
    allowed = {row for row, place in zip(places["row"], places["place"], strict=True) if place in ("train", "replay")}
    assert trained <= allowed
    assert {row for row in allowed if row.startswith("small")} <= trained


def test_the_model_loads_with_plain_transformers_and_stops_on_its_stop_token(finished):
    model = AutoModelForCausalLM.from_pretrained(finished / "model")
    tokenizer = AutoTokenizer.from_pretrained(finished / "model")
    assert tokenizer.chat_template
    stops = model.generation_config.eos_token_id
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") in (stops if isinstance(stops, list) else [stops])


def test_what_was_measured_is_there(finished):
    summary = read(finished / "evaluation/summary.json")
    assert set(summary["generation"]["levels"]) == {"new_items", "new_phrasings", "new_clusters"}
    assert summary["forgetting"]["documents"] == 10
    items = [json.loads(line) for line in (finished / "evaluation/items.jsonl").read_text().splitlines()]
    assert items and all(set(item["answers"]) == {"base_chat", "base_plain", "tuned"} for item in items)
    assert (finished / "report.html").stat().st_size > 10_000
    assert read(finished / "run.json")["status"] == "finished"


def test_a_finished_run_does_nothing_again(finished, recipe, tmp_path):
    folder = tmp_path / "again"
    shutil.copytree(finished, folder)
    before = {path: path.stat().st_mtime_ns for path in (folder / "model").iterdir()}
    from tunesmith.recipe import load_recipe

    assert run(load_recipe(str(folder)), folder) == 0
    assert before == {path: path.stat().st_mtime_ns for path in (folder / "model").iterdir()}


def test_two_runs_give_the_same_bytes(finished, recipe, tmp_path):
    assert run(recipe(), tmp_path / "other", until="train") == 0
    weights = "model/model.safetensors"
    assert (finished / weights).read_bytes() == (tmp_path / "other" / weights).read_bytes()


def test_a_different_recipe_is_refused_and_nothing_lost(finished, recipe, tmp_path):
    folder = tmp_path / "kept"
    shutil.copytree(finished, folder)
    with pytest.raises(UserError, match="different recipe") as caught:
        run(recipe("train.learning_rate=0.002"), folder)
    assert "learning_rate: 0.002" in str(caught.value) and "--output" in str(caught.value)
    assert (folder / "model/model.safetensors").read_bytes() == (finished / "model/model.safetensors").read_bytes()


def test_a_folder_with_other_files_is_refused(recipe, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("precious")
    with pytest.raises(UserError, match="no run of Tunesmith"):
        run(recipe(), tmp_path / "mine", until="prepare")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_changed_data_is_seen(recipe, tmp_path):
    data = tmp_path / "rows.jsonl"
    rows = [{"instruction": f"Say {number}.", "output": f"{number}"} for number in range(40)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    loaded = recipe(f"data.sources=[{{path: {data}}}]", "data.hold_out.clusters=[]")
    assert run(loaded, tmp_path / "run", until="prepare") == 0
    before = TokenStore.open(tmp_path / "run/tokens/store").tokens
    data.write_text(data.read_text() + json.dumps({"instruction": "One more.", "output": "yes"}) + "\n")
    assert run(loaded, tmp_path / "run", until="prepare") == 0
    assert TokenStore.open(tmp_path / "run/tokens/store").tokens > before
    (tmp_path / "run/checkpoints").mkdir()  # as after training
    data.write_text(data.read_text() + json.dumps({"instruction": "And more.", "output": "yes"}) + "\n")
    with pytest.raises(UserError, match="changed since it was trained"):
        run(loaded, tmp_path / "run", until="prepare")


def test_a_source_without_usable_rows_says_why(recipe, tmp_path):
    (tmp_path / "bad.jsonl").write_text('{"instruction": "no answer"}\n{broken\n')
    with pytest.raises(UserError, match="none of its 2 rows can be used") as caught:
        run(recipe(f"data.sources=[{{path: {tmp_path / 'bad.jsonl'}}}]"), tmp_path / "run", until="prepare")
    assert "bad_json" in str(caught.value) or "broken" in str(caught.value)


def test_an_unknown_cluster_names_the_nearest(recipe, tmp_path):
    with pytest.raises(UserError, match="paraphrase"):
        run(recipe("data.hold_out.clusters=[paraphrases]"), tmp_path / "run", until="prepare")


def test_a_broken_limit_ends_in_its_own_error_with_the_report_written(recipe, tmp_path):
    with pytest.raises(LimitBroken, match="forgot more") as caught:
        run(recipe("train.learning_rate=0.1", "data.replay=null", "evaluate.forgetting.max_rise=0.0"), tmp_path / "run")
    assert caught.value.exit_code == 3
    assert (tmp_path / "run/report.html").is_file()


def test_a_full_disk_leaves_what_was_there(recipe, tmp_path, monkeypatch):
    import errno

    from tunesmith.base.errors import TunesmithError
    from tunesmith.train import save

    assert run(recipe(), tmp_path / "run", until="prepare") == 0
    before = sorted(path.relative_to(tmp_path) for path in (tmp_path / "run").rglob("*"))

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(save, "_write", full)
    with pytest.raises(TunesmithError, match="No space left") as caught:
        run(recipe(), tmp_path / "run", until="train")
    assert "MB free" in str(caught.value)
    after = {path.relative_to(tmp_path) for path in (tmp_path / "run").rglob("*")}
    assert set(before) <= after and not any(".part" in str(path) for path in after)
    monkeypatch.undo()
    assert run(recipe(), tmp_path / "run", until="train") == 0


def test_inspect_shows_the_tokens_of_a_row(finished, recipe, capsys):
    row = json.loads((finished / "evaluation/items.jsonl").read_text().splitlines()[0])["row"]
    for run_folder in (finished, None):
        assert inspect(recipe(), run_folder, row=row, ids=False, as_json=True) == 0
        (shown,) = json.loads(capsys.readouterr().out)
        assert shown["row"] == row and any(shown["supervised"])


def test_inspecting_a_recipe_shows_its_files_as_they_are(recipe, tmp_path, capsys):
    data = tmp_path / "rows.jsonl"
    loaded = recipe(f"data.sources=[{{path: {data}, name: 'a:b'}}]")
    data.write_text('{"instruction": "Say it.", "output": "yes"}\n{"instruction": "No answer."}\n')
    assert inspect(loaded, None, row="a:b:1", ids=False, as_json=True) == 0
    assert [shown["row"] for shown in json.loads(capsys.readouterr().out)] == ["a:b:1"]
    with pytest.raises(UserError, match=r"row a:b:2 has no tokens: dropped by stage read"):
        inspect(loaded, None, row="a:b:2", ids=False, as_json=True)
    with pytest.raises(UserError, match="there is no row a:b:3"):
        inspect(loaded, None, row="a:b:3", ids=False, as_json=True)


def test_a_base_changed_in_place_is_another_base(recipe, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(base_path("pocket"), base)
    loaded = recipe(f"base={base}", "data.sources.0.pocket=60", "data.hold_out.clusters=[]")
    assert run(loaded, tmp_path / "run", until="train") == 0
    weights = base / "model.safetensors"
    tensors = load_file(weights)
    save_file({name: tensor + 0.01 for name, tensor in tensors.items()}, weights, metadata={"format": "pt"})
    with pytest.raises(TunesmithError, match="belongs to a run of other settings"):
        run(loaded, tmp_path / "run", until="train")


def test_a_base_of_the_hub_is_known_by_its_commit(tmp_path, monkeypatch):
    from tunesmith.pipeline import _content

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert _content("someone/model") == "someone/model"
    repository, commit = tmp_path / "models--someone--model", "a1" * 20
    for name, text in (("refs/main", commit), (f"snapshots/{commit}/config.json", "{}")):
        (repository / name).parent.mkdir(parents=True)
        (repository / name).write_text(text)
    assert _content("someone/model") == f"someone/model@{commit}"


def test_a_run_that_shows_nothing_says_so(recipe, tmp_path, capsys):
    nothing = ("data.sources.0.pocket=60", "data.hold_out={items: 0}", "train.tokens_per_step=1024", "train.epochs=0.1")
    assert run(recipe(*nothing), tmp_path / "run") == 0
    said = capsys.readouterr().err
    assert "Warning: only 1 optimizer step; lower train.tokens_per_step or raise train.epochs" in said
    assert "Warning: nothing was held out and compared" in said


def test_the_report_of_a_preparation_says_that_it_has_finished(recipe, tmp_path):
    assert run(recipe(), tmp_path / "run", until="prepare") == 0
    assert "<dt>Status</dt><dd>finished</dd>" in (tmp_path / "run/report.html").read_text()


def test_template_arguments_reach_training_and_serving(recipe, tmp_path):
    """Training, and whoever loads the saved model, render with the recipe's arguments."""
    template = tmp_path / "tone.jinja"
    template.write_text(
        "{% for m in messages %}<|im_start|>{{ m.role }} ({{ tone | default('plain') }})\n{{ m.content }}<|im_end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant ({{ tone | default('plain') }})\n{% endif %}"
    )
    folder = tmp_path / "run"
    loaded = recipe(f"chat_template={template}", "template_args.tone=kind", "data.sources.0.pocket=60")
    assert run(loaded, folder, until="train") == 0
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    asked = [{"role": "user", "content": "Well?"}]
    served = tokenizer.apply_chat_template(asked, add_generation_prompt=True, tokenize=False)
    assert served == "<|im_start|>user (kind)\nWell?<|im_end|>\n<|im_start|>assistant (kind)\n"
    trained = [tokenizer.decode(sequence.ids) for sequence in TokenStore.open(folder / "tokens/store")]
    assert sum(text.startswith("<|im_start|>user (kind)\n") for text in trained) >= 55
    with pytest.raises(UserError, match=r"no argument 'tune'.*It reads tone"):
        run(recipe(f"chat_template={template}", "template_args.tune=kind"), tmp_path / "other", until="prepare")


def test_long_rows_may_lose_their_oldest_turns(recipe, tmp_path):
    folder = tmp_path / "run"
    loaded = recipe("train.max_length=72", "train.too_long=oldest_turns", "train.supervise=last")
    run(loaded, folder, until="prepare")
    supervised = next(step for step in read(folder / "ledger/steps.json") if step["stage"] == "supervise")
    assert supervised["changed"] > 5
    store = TokenStore.open(folder / "tokens/store")
    rows = [sequence for row, sequence in zip(store.row_ids, store, strict=True) if row.startswith("small:")]
    assert max(map(len, rows)) <= 72 and all(len(sequence.turns) == 1 for sequence in rows)


def test_a_run_can_be_inspected_once_its_source_is_gone(recipe, tmp_path, capsys):
    source = tmp_path / "mine.json"
    source.write_text(json.dumps([{"instruction": f"Say {n}", "output": str(n)} for n in range(12)]))
    loaded = recipe(f"data.sources.0={{path: {source}, name: mine}}", "data.hold_out={items: 0.0}", "data.replay=null")
    folder = tmp_path / "run"
    run(loaded, folder, until="prepare")
    capsys.readouterr()
    for gone in (False, True):
        if gone:
            source.unlink()
        assert inspect(loaded, folder, row="mine:3", ids=False, as_json=True) == 0
        (shown,) = json.loads(capsys.readouterr().out)
        assert shown["row"] == "mine:3" and ("served" in shown["turns"][0]) is not gone
