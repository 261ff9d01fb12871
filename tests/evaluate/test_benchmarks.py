"""lm-evaluation-harness on a model loaded here, against its own HFLM: same tasks, same figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from tunesmith.base.errors import UserError
from tunesmith.base.random import python_stream
from tunesmith.evaluate.benchmarks import BenchmarkResult, benchmark_items, run_benchmarks, task_files
from tunesmith.evaluate.choice import ChoiceItem, choose
from tunesmith.model.load import LoadedModel, load_base
from tunesmith.pocket import tasks as pocket

lm_eval = pytest.importorskip("lm_eval", reason="lm-eval, an extra, is not installed")
pytestmark = [
    pytest.mark.slow,  # importing lm-eval alone takes seconds
    pytest.mark.filterwarnings("ignore"),  # of lm-eval and datasets, which are not ours
]

CHOICES = """task: our_choices
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}\\n\\nAnswer:"
doc_to_choice: options
doc_to_target: answer
metric_list: [{{metric: acc}}, {{metric: acc_norm}}, {{metric: acc_bytes}}, {{metric: acc_mutual_info}}]
"""
ANSWERS = """task: our_answers
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{options[answer]}}}}"
generation_kwargs: {{until: {until}, max_gen_toks: 24, {more}}}
metric_list: [{{metric: exact_match}}]
"""
TEXTS = """task: our_texts
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{question}}}} {{{{options}}}}"
metric_list: [{{metric: word_perplexity}}, {{metric: bits_per_byte}}]
"""


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    torch.set_num_threads(1)
    return load_base("pocket")


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    draw, made = python_stream(0, "items"), []
    written = list(pocket.conversations(0, 400))
    for row in written[:40]:
        options = [row.response, *draw.sample(sorted({one.response for one in written} - {row.response}), 3)]
        draw.shuffle(options)
        made.append({"question": row.prompt[-1].content, "options": options, "answer": options.index(row.response)})
    return made


def task(folder: Path, text: str, rows: list[dict[str, Any]], **more: str) -> Path:
    data = folder / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    path = folder / "task.yaml"
    path.write_text(text.format(data=data, **more), encoding="utf-8")
    return path


def theirs(loaded: LoadedModel, path: Path, name: str, **options: Any) -> dict[str, Any]:
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    model = AutoModelForCausalLM.from_pretrained(loaded.path, dtype=torch.float32).eval()
    found = simple_evaluate(
        model=HFLM(pretrained=model, tokenizer=loaded.tokenizer, batch_size=8),
        tasks=[name],
        task_manager=TaskManager(include_path=str(path.parent)),
        bootstrap_iters=0,
        **options,
    )
    return {"metrics": found["results"][name], "samples": found["samples"][name]}


def check(ours: BenchmarkResult, reference: dict[str, Any]) -> None:
    assert ours.metrics
    for metric, value in ours.metrics.items():
        assert value == pytest.approx(reference["metrics"][f"{metric},none"], rel=1e-5), metric


def test_choices_are_those_of_hflm_and_of_our_own_scoring(
    loaded: LoadedModel, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    path = task(tmp_path, CHOICES, rows)
    ours = run_benchmarks(loaded.model, loaded.tokenizer, [path], shots=0)[0]
    reference = theirs(loaded, path, "our_choices", num_fewshot=0)
    check(ours, reference)
    assert set(ours.metrics) == {"acc", "acc_norm", "acc_bytes", "acc_mutual_info"} and len(ours.items) == len(rows)
    for item, sample in zip(ours.items, sorted(reference["samples"], key=lambda one: one["doc_id"]), strict=True):
        assert item.prompt == sample["arguments"][0][0] and item.scores["acc"] == sample["acc"]

    items = [
        ChoiceItem(f"x:{n}", pocket_prompt(row["question"]), tuple(row["options"]), row["answer"])
        for n, row in enumerate(rows)
    ]
    own = choose(loaded.model, loaded.tokenizer, items, style="plain")
    if loaded.tokenizer.bos_token_id is None:  # else our plain prompts begin with it, and HFLM's don't
        names = {"raw": "acc", "characters": "acc_norm", "bytes": "acc_bytes", "unconditional": "acc_mutual_info"}
        for ours_name, name in names.items():
            assert sum(one.correct[ours_name] for one in own) / len(own) == pytest.approx(ours.metrics[name])


def pocket_prompt(question: str) -> tuple[Any, ...]:
    from tunesmith.base.conversation import Message

    return (Message("user", question),)


# HFLM remembers by its place in the batch which row has said an ending text, and beams change places: so beams of
# different endings are not compared.
@pytest.mark.parametrize(("more", "until"), [("do_sample: false", '["\\n", "the"]'), ("num_beams: 3", "[]")])
def test_answers_are_those_of_hflm(
    loaded: LoadedModel, rows: list[dict[str, Any]], tmp_path: Path, more: str, until: str
) -> None:
    path = task(tmp_path, ANSWERS, rows[:12], until=until, more=more)
    ours = run_benchmarks(loaded.model, loaded.tokenizer, [path])[0]
    reference = theirs(loaded, path, "our_answers")
    answers = [sample["filtered_resps"][0] for sample in sorted(reference["samples"], key=lambda one: one["doc_id"])]
    assert [item.response for item in ours.items] == answers
    assert len(set(answers)) > 3
    check(ours, reference)


def test_whole_texts_are_scored_as_by_hflm(loaded: LoadedModel, rows: list[dict[str, Any]], tmp_path: Path) -> None:
    long = [{**row, "question": " ".join(one["question"] for one in [*rows, *rows])} for row in rows[:2]]
    path = task(tmp_path, TEXTS, [*long, *rows[:6]])
    tokens = len(loaded.tokenizer(long[0]["question"]).input_ids)
    assert tokens > loaded.model.config.max_position_embeddings, "the long texts should need several windows"
    check(run_benchmarks(loaded.model, loaded.tokenizer, [path])[0], theirs(loaded, path, "our_texts"))


def test_through_the_chat_template_with_examples(
    loaded: LoadedModel, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    path = task(tmp_path, CHOICES, rows[:10])
    ours = run_benchmarks(loaded.model, loaded.tokenizer, [path], chat=True, shots=1, limit=8, seed=7)[0]
    seeds = {f"{name}_seed": 7 for name in ("random", "numpy_random", "torch_random", "fewshot_random")}
    drawn = [item.number for item in ours.items]
    assert len(drawn) == 8 and drawn == sorted(drawn) and drawn != list(range(8)), "not the first, but any"
    given = {"num_fewshot": 1, "samples": {"our_choices": drawn}, "apply_chat_template": True}
    given |= {"fewshot_as_multiturn": True}
    reference = theirs(loaded, path, "our_choices", **given, **seeds)
    check(ours, reference)
    prompts = [sample["arguments"][0][0] for sample in sorted(reference["samples"], key=lambda one: one["doc_id"])]
    assert ours.shots == 1 and [item.prompt for item in ours.items] == prompts


@pytest.mark.parametrize(("text", "more"), [(CHOICES, {}), (ANSWERS, {"until": "[]", "more": ""}), (TEXTS, {})])
def test_what_items_ask_is_read_without_what_the_task_puts_around_it(
    rows: list[dict[str, Any]], tmp_path: Path, text: str, more: dict[str, str]
) -> None:
    items = benchmark_items([task(tmp_path, text, rows, **more)], limit=7, seed=3)
    numbers = [int(item.id.rpartition(":")[2]) for item in items]
    for item, number in zip(items, numbers, strict=True):
        question, options = rows[number]["question"], rows[number]["options"]
        if text == TEXTS:  # a text that is measured whole has no prompt
            assert item.texts == tuple(("text", one) for one in (question, *options))
        else:
            assert item.texts[0] == ("question", question) and {one for _, one in item.texts[1:]} <= set(options)
    assert len(set(numbers)) == 7


def test_an_item_is_never_reduced_to_a_label(tmp_path: Path) -> None:
    doc = {"premise": "The man broke his toe.", "question": "cause", "more": {"texts": ["He dropped a hammer on it."]}}
    because = "task: t\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {data}}}}}\ntest_split: test\n"
    because += "output_type: generate_until\ndoc_to_target: question\nmetric_list: [{{metric: exact_match}}]\n"
    (item,) = benchmark_items([task(tmp_path, because + 'doc_to_text: "{{{{premise[:-1]}}}} because"\n', [doc])])
    assert item.texts == (("question", doc["premise"]),)
    (item,) = benchmark_items([task(tmp_path, because + 'doc_to_text: "What is the {{{{question}}}}?"\n', [doc])])
    assert dict(item.texts).keys() == {"text"} and {text for _, text in item.texts} == {
        doc["premise"],
        "cause",
        "He dropped a hammer on it.",
    }


def test_the_files_of_a_task_are_known(tmp_path: Path) -> None:
    path = task(tmp_path, "task: t\ndataset_kwargs: {{data_files: {{test: '{data}'}}}}\ninclude: other.yaml\n", [{}])
    (tmp_path / "other.yaml").write_text("")
    assert task_files(path) == [path, tmp_path / "data.jsonl", tmp_path / "other.yaml"]
    assert task_files("arc_easy") == []


def test_what_cannot_be_done_is_said(loaded: LoadedModel, rows: list[dict[str, Any]], tmp_path: Path) -> None:
    def refused(tasks: list[Any]) -> str:
        with pytest.raises(UserError) as error:
            run_benchmarks(loaded.model, loaded.tokenizer, tasks)
        return str(error.value)

    assert "no such task" in refused(["no such task"]) and "none that lm-eval knows" in refused(["no such task"])
    assert "no such file" in refused([tmp_path / "missing.yaml"])
    path = task(tmp_path, ANSWERS, rows[:2], until="[]", more="repetition_penalty: 1.3")
    assert "repetition_penalty" in refused([path])
    path.write_text(path.read_text().replace("data.jsonl", "gone.jsonl").replace("repetition_penalty: 1.3", ""))
    assert "can't be read" in refused([path])
    path.write_text("dataset_path: json\n")
    assert "names no task" in refused([path])
