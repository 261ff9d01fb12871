"""The whole road with an encoder-decoder as the base: the same recipe, loop, measuring, report and chat."""

import json
import shutil

import numpy as np
import pytest
import torch
from tiny import byte_tokenizer, tiny_t5
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from tunesmith.model.load import load_trained
from tunesmith.pipeline import inspect, run
from tunesmith.recipe import load_recipe
from tunesmith.serve.chat import open_chat
from tunesmith.tokens.store import TokenStore

RECIPE = """
base: {base}
data:
  sources: [{{path: {rows}}}]
  replay: {{path: {texts}, share: 0.1}}
  hold_out: {{items: 0.2}}
train: {{method: {method}, learning_rate: 2.0e-2, epochs: 12, max_length: 128, tokens_per_step: 256}}
evaluate: {{items: 4, losses: 20, max_new_tokens: 6, forgetting: {{path: {texts}, documents: 4}}}}
"""


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A base that has no chat template, rows with one and two turns, and plain text."""
    folder = tmp_path_factory.mktemp("given")
    tokenizer = byte_tokenizer()
    tokenizer.chat_template, tokenizer.bos_token, tokenizer.pad_token = None, None, "<s>"
    tiny_t5(len(tokenizer), dropout_rate=0.1, decoder_start_token_id=256).save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    rows = [[("user", f"Say {n % 7}!"), ("assistant", str(n % 7))] for n in range(60)]
    rows += [[*rows[n], ("user", "Again?"), ("assistant", "No.")] for n in range(20)]
    lines = [json.dumps({"messages": [{"role": role, "content": text} for role, text in row]}) for row in rows]
    (folder / "rows.jsonl").write_text("\n".join(lines))
    texts = [json.dumps({"text": f"Text number {n} goes on for a while, and ends."}) for n in range(12)]
    (folder / "texts.jsonl").write_text("\n".join(texts))
    return folder


def loaded(given, folder, method, *overrides):
    path = folder / f"{method}.yaml"
    rows, texts = given / "rows.jsonl", given / "texts.jsonl"
    path.write_text(RECIPE.format(base=given / "base", rows=rows, texts=texts, method=method))
    return load_recipe(str(path), overrides)


@pytest.fixture(scope="module")
def finished(given, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    assert run(loaded(given, folder, "full"), folder / "run") == 0
    return folder / "run"


def test_a_run_ends_with_a_better_model_and_a_report(finished):
    summary = json.loads((finished / "evaluation/summary.json").read_text())
    overall = summary["loss"]["new_items"]["overall"]
    assert overall["tuned"] < 0.3 * overall["base"]
    assert summary["generation"]["levels"]["new_items"]["overall"]["n"] == 4
    # Half of every text is read, so only the other half is counted.
    texts = json.loads((finished / "data/texts.json").read_text())
    assert 0.4 < summary["forgetting"]["bytes"] / sum(map(len, texts)) < 0.6
    assert "<dt>Status</dt><dd>finished</dd>" in (finished / "report.html").read_text()


def test_what_is_trained_is_the_answer_after_the_prompt_as_served(finished):
    tokenizer = AutoTokenizer.from_pretrained(finished / "model")
    store = TokenStore.open(finished / "tokens/store")
    asked = {}
    for sequence in store:
        for _, start, end in sequence.turns:
            asked[tokenizer.decode(sequence.ids[:start])] = tokenizer.decode(sequence.ids[start:end])
    assert asked["Say 3!</s>"] == "3</s>" and asked["Say 3!</s>3</s>Again?</s>"] == "No.</s>"
    served = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Say 3!"}], add_generation_prompt=True, tokenize=False
    )
    assert served == "Say 3!</s>"
    assert any(prompt.startswith("Text number") and rest.endswith("ends.</s>") for prompt, rest in asked.items())


def test_plain_transformers_answers_as_tunesmith_does(finished):
    model, tokenizer = (kind.from_pretrained(finished / "model") for kind in (AutoModelForSeq2SeqLM, AutoTokenizer))
    asked = [{"role": "user", "content": "Say 5!"}]
    prompt = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = model.eval().generate(**prompt, max_new_tokens=6, do_sample=False)
    chat = open_chat(finished / "model", "unused", max_new_tokens=6)
    assert tokenizer.decode(answer[0], skip_special_tokens=True).strip() == "".join(chat.answer("Say 5!")).strip()


def test_a_base_is_asked_in_the_form_it_was_pretrained_with(given):
    chat = open_chat(None, str(given / "base"), max_new_tokens=3)
    said = "".join(chat.answer("Hello"))
    model, tokenizer = (kind.from_pretrained(given / "base") for kind in (AutoModelForSeq2SeqLM, AutoTokenizer))
    out = model.generate(torch.tensor([tokenizer("Hello</s>")["input_ids"]]), max_new_tokens=3, do_sample=False)
    assert said.strip() == tokenizer.decode(out[0], skip_special_tokens=True).strip()


def test_lora_trains_and_is_put_on_its_base(given, tmp_path):
    recipe = loaded(given, tmp_path, "lora")
    assert run(recipe, tmp_path / "run") == 0
    model = load_trained(tmp_path / "run/model", base=str(given / "base")).model
    assert model.peft_config["default"].task_type == "SEQ_2_SEQ_LM"
    summary = json.loads((tmp_path / "run/evaluation/summary.json").read_text())
    overall = summary["loss"]["new_items"]["overall"]
    assert overall["tuned"] < 0.9 * overall["base"]


def test_an_interrupted_run_goes_on_to_the_same_weights(given, finished, tmp_path):
    recipe = loaded(given, tmp_path, "full", "train.checkpoint_every=4", "evaluate.items=0")
    assert run(recipe, tmp_path / "run", until="train") == 0
    shutil.rmtree(tmp_path / "run/model")
    newest = sorted((tmp_path / "run/checkpoints").iterdir())[-1]
    shutil.rmtree(newest)
    assert run(recipe, tmp_path / "run", until="train") == 0
    one, other = (
        AutoModelForSeq2SeqLM.from_pretrained(path / "model").state_dict() for path in (tmp_path / "run", finished)
    )
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_rows_are_shown_as_they_are_trained(given, tmp_path, capsys):
    assert inspect(loaded(given, tmp_path, "full"), None, row="rows:1", ids=False, as_json=True) == 0
    (shown,) = json.loads(capsys.readouterr().out)
    assert np.array(shown["supervised"]).sum() == 2
