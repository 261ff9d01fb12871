"""Rank classification against transformers' logits, option by option, and the shapes of item files."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny_t5
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from tunesmith.base.conversation import Message
from tunesmith.base.errors import DataError, UserError
from tunesmith.base.random import python_stream
from tunesmith.evaluate.choice import NORMALISATIONS, ChoiceItem, choose, read_choices
from tunesmith.tokens.templates import plain_prompt, prompt_ids

WORDS = "yes no red blue green maybe never often Zürich 日本 a b".split()


def items_of(count: int) -> list[ChoiceItem]:
    draw = python_stream(0, "items")

    def text(longest: int) -> str:
        return " ".join(draw.choice(WORDS) for _ in range(draw.randint(1, longest)))

    made = []
    for number in range(count):
        options = (*dict.fromkeys(text(3) for _ in range(draw.randint(3, 5))), "the last one")
        made.append(ChoiceItem(f"x:{number}", (Message("user", text(12)),), options, draw.randrange(len(options))))
    return made


def ids_of(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False).input_ids)


@torch.no_grad()
def log_of(model: Any, prompt: list[int], option: list[int]) -> float:
    likely = model(torch.tensor([prompt + option])).logits[0].log_softmax(-1)
    return sum(float(likely[len(prompt) + place - 1, token]) for place, token in enumerate(option))


@pytest.mark.parametrize("style", ["plain", "chat"])
def test_options_are_scored_as_each_alone(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, style: Any
) -> None:
    stock = copy.deepcopy(model)
    stock.set_attn_implementation("eager")
    items = items_of(15)
    found = choose(model, tokenizer, items, style=style)
    chosen = set()
    for item, choice in zip(items, found, strict=True):
        if style == "plain":
            prompt = [256, *ids_of(tokenizer, plain_prompt(item.prompt))]
            start, space = [256], " "
        else:
            prompt, start, space = prompt_ids(item.prompt, tokenizer), prompt_ids([Message("user", "")], tokenizer), ""
        ids = [ids_of(tokenizer, option) for option in item.options]
        spaced = [ids_of(tokenizer, space + option) for option in item.options]
        logs = [log_of(stock, prompt, option) for option in spaced]
        alone = [log_of(stock, start, option) for option in ids]
        expected = {
            "raw": logs,
            "characters": [log / len(option) for log, option in zip(logs, item.options, strict=True)],
            "bytes": [log / len(option.encode()) for log, option in zip(logs, item.options, strict=True)],
            "tokens": [log / len(option) for log, option in zip(logs, spaced, strict=True)],
            "unconditional": [log - less for log, less in zip(logs, alone, strict=True)],
        }
        assert set(expected) == set(NORMALISATIONS) == set(choice.scores)
        for name, scores in expected.items():
            assert choice.scores[name] == pytest.approx(scores, rel=1e-4, abs=1e-3)
            best = max(range(len(scores)), key=scores.__getitem__)
            assert choice.chosen[name] == best and choice.correct[name] == (best == item.answer)
        chosen.add(tuple(choice.chosen.values()))
    assert any(len(set(one)) > 1 for one in chosen), "normalisations that always agree prove nothing"


def test_batches_change_nothing_and_the_unconditional_can_be_left_out(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    items = items_of(12)
    whole = choose(model, tokenizer, items, style="chat")
    small = choose(model, tokenizer, items, style="chat", batch_tokens=300, unconditional=False)
    for one, other in zip(whole, small, strict=True):
        assert one.log == pytest.approx(other.log, abs=1e-3) and other.unconditional == ()
        assert "unconditional" not in other.chosen


def test_an_encoder_decoder_reads_the_prompt(tokenizer: PreTrainedTokenizerFast) -> None:
    model = tiny_t5(len(tokenizer), seed=2, initializer_factor=2.0)
    item = items_of(1)[0]
    found = choose(model, tokenizer, [item], style="plain", unconditional=False)[0]
    read = [256, *ids_of(tokenizer, plain_prompt(item.prompt)), 257]
    for option, log in zip(item.options, found.log, strict=True):
        ids = ids_of(tokenizer, f" {option}")
        with torch.no_grad():
            given = {"input_ids": torch.tensor([read]), "decoder_input_ids": torch.tensor([[0, *ids[:-1]]])}
            likely = model(**given).logits[0].log_softmax(-1)
        expected = sum(float(likely[place, token]) for place, token in enumerate(ids))
        assert log == pytest.approx(expected, rel=1e-4) and math.isfinite(log)


def test_an_item_without_room_is_refused_by_name(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    long = ChoiceItem("big:3", (Message("user", "a" * 505),), ("yes", "no"), 0)
    with pytest.raises(UserError, match="item big:3: its prompt of 51"):
        choose(model, tokenizer, [*items_of(2), long], style="plain")


def written(folder: Path, *rows: Any) -> Path:
    path = folder / "items.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_the_usual_shapes_are_read(tmp_path: Path) -> None:
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]
    rows = (
        {"question": "q", "options": ["x", "y"], "answer": 1, "cluster": "c"},
        {"prompt": "q", "choices": ["x", "y"], "answer": "y"},
        {"messages": messages, "options": ["x", "y"], "answer": "B"},
        {"question": "q", "choices": {"text": ["x", "y"], "label": ["1", "2"]}, "answerKey": "2"},
        {"question": "q", "choices": {"text": ["x", "y"], "label": [1, 2]}, "answer": 2},
        {"ctx": "q", "endings": ["x", "y", "z"], "label": "1"},
        {"question": "q", "options": ["B", "A"], "answer": "A"},
    )
    items = read_choices("t", written(tmp_path, *rows))
    assert [item.answer for item in items] == [1] * 7
    assert [item.id for item in items] == [f"t:{number}" for number in range(1, 8)]
    assert items[0].cluster == "c" and items[2].prompt == (Message("system", "s"), Message("user", "q"))


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"text": "nothing else"}, "no options"),
        ({"question": "q", "options": ["x", "y"]}, "no right answer"),
        ({"options": ["x", "y"], "answer": 0}, "no question"),
        ({"question": "q", "choices": {"text": ["x", "y"], "label": ["A", "B", "C"]}, "answer": "C"}, "labels"),
        ({"question": "q", "options": ["x"], "answer": 0}, "two or more"),
        ({"question": "q", "options": ["x", "x"], "answer": 0}, "different texts"),
        ({"question": "q", "options": "xy", "answer": 0}, "two or more"),
        ({"question": "q", "options": ["x", "y"], "answer": 2}, "none of its 2 options"),
        ({"question": "q", "options": ["x", "y"], "answer": "C"}, "none of its 2 options"),
        ({"question": "q", "options": ["x", "y"], "answer": True}, "none of its 2 options"),
        ({"question": "q", "options": ["x", "y"], "answer": -1}, "none of its 2 options"),
        ({"messages": [{"role": "assistant", "content": "a"}], "options": ["x", "y"], "answer": 0}, "messages"),
        (["a list"], "not an object"),
    ],
)
def test_other_shapes_are_refused_with_their_line(tmp_path: Path, row: Any, said: str) -> None:
    good = {"question": "q", "options": ["x", "y"], "answer": 1}
    with pytest.raises(DataError, match=said) as error:
        read_choices("t", written(tmp_path, good, row))
    assert "item t:2" in str(error.value)


def test_items_of_several_files_are_different_items(tmp_path: Path) -> None:
    for name in ("law", "art"):
        (tmp_path / name).mkdir()
        written(tmp_path / name, {"question": "q", "options": ["x", "y"], "answer": 1})
    assert [item.id for item in read_choices("t", str(tmp_path))] == ["t:art/items.jsonl:1", "t:law/items.jsonl:1"]


def test_broken_lines_and_empty_files_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, {"question": "q", "options": ["x", "y"], "answer": 1})
    path.write_text(path.read_text() + "{broken\n")
    with pytest.raises(DataError, match="t:2 can't be read"):
        read_choices("t", path)
    path.write_text("\n")
    with pytest.raises(DataError, match="no items"):
        read_choices("t", path)
