"""Exported rows against the rows themselves, in both forms, and what other programs want of them."""

import json

import pyarrow.parquet as pq
import yaml

from tunesmith.base.conversation import Conversation, Message
from tunesmith.data.card import CardFacts, SourceFacts, card
from tunesmith.data.export import dataset_info, export_rows
from tunesmith.pocket.tasks import conversations

CALLS = ({"name": "add", "arguments": {"a": 1, "b": [2, "x"]}}, {"name": "now", "arguments": {}, "id": "c2"})
TOOLS = ({"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}},)


def given():
    called = (
        Message("system", "Be brief."),
        Message("user", "1 + 2?"),
        Message("assistant", "", reasoning="A sum.", tool_calls=CALLS),
        Message("tool", "3", name="add", tool_call_id="c1"),
        Message("assistant", "Three, \ud83d it is.", train=False),
    )
    rows = [("train", row) for row in conversations(0, 50)]
    rows += [("test", row) for row in conversations(1, 20, "other")]
    rows.insert(10, ("train", Conversation("t:1", called, "t", "tools", tools=TOOLS)))
    return [*rows, ("train", Conversation.from_text("replay:1", "A plain text.", "replay"))]


def without_nulls(value):
    if isinstance(value, dict):
        return {key: without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [without_nulls(inner) for inner in value] if isinstance(value, list) else value


def test_rows_come_back_from_parquet_and_jsonl(tmp_path):
    rows = given()
    done = export_rows(tmp_path, rows)
    assert done.fields == ["reasoning_content", "tool_calls", "name", "tool_call_id", "train"]
    assert (done.tools, done.halved) == (True, 1)
    for split in ("train", "test"):
        wanted = [row for side, row in rows if side == split and not row.is_text]
        table = pq.read_table(tmp_path / "data" / f"{split}.parquet").to_pylist()
        lines = [json.loads(line) for line in (tmp_path / "jsonl" / f"{split}.jsonl").read_text().splitlines()]
        for row, from_table, from_line in zip(wanted, table, lines, strict=True):
            assert [from_table[key] for key in ("id", "source", "split")] == [row.id, row.source, split]
            messages = without_nulls(from_table["messages"])
            for message, expected in zip(messages, row.messages, strict=True):
                assert message["role"] == expected.role
                assert message["content"] == expected.content.replace("\ud83d", "\ufffd")
                assert message.get("reasoning_content") == expected.reasoning
                assert message.get("train") == expected.train
                calls = [call["function"] for call in message.get("tool_calls", [])]
                assert [{"name": c["name"], "arguments": json.loads(c["arguments"])} for c in calls] == [
                    {"name": call["name"], "arguments": call["arguments"]} for call in expected.tool_calls
                ]
            assert json.loads(from_table["tools"] or "[]") == list(row.tools)
            # LLaMA-Factory counts the calls of every answer.
            assert all("tool_calls" in message for message in from_line["messages"] if message["role"] == "assistant")
            for message in from_line["messages"]:
                if not message.get("tool_calls"):
                    message.pop("tool_calls", None)
            assert from_line["messages"] == messages
    text = pq.read_table(tmp_path / "plain_text/train.parquet").to_pylist()
    assert [(row["text"], row["id"]) for row in text] == [("A plain text.", "replay:1")]


def test_plain_conversations_have_no_columns_for_what_none_of_them_has(tmp_path):
    done = export_rows(tmp_path, [("train", row) for row in conversations(0, 5)])
    message = pq.read_schema(tmp_path / "data/train.parquet").field("messages").type.value_type
    assert [field.name for field in message] == ["role", "content"] and not (tmp_path / "plain_text").exists()
    info = dataset_info(done)["train"]
    assert info["formatting"] == "sharegpt" and info["columns"] == {"messages": "messages"}


def test_the_card_names_what_was_given(tmp_path):
    done = export_rows(tmp_path, given())
    source = SourceFacts("t", "rows | of.json", "apache-2.0", 75, "messages", (("rows.json", 1234, "ab" * 32),))
    step = {"stage": "filter", "read": 75, "kept": 72, "dropped": 3, "changed": 2, "reasons": {"copy": 2, "refusal": 1}}
    facts = CardFacts("mine", "1.2", 7, [source], done.files, [step], {}, done.fields, done.halved)
    text = card(facts)
    header = yaml.safe_load(text.split("---\n")[1])
    assert header["license"] == "apache-2.0" and header["size_categories"] == ["n<1K"]
    splits = {config["config_name"]: config["data_files"] for config in header["configs"]}
    assert [file["split"] for file in splits["default"]] == ["train", "test"]
    for files in splits.values():
        assert all((tmp_path / file["path"]).is_file() for file in files)
    assert "| filter | 75 | 72 | 2 | 3 | copy 2; refusal 1 |" in text and "rows \\| of.json" in text
    assert all(file.sha256 in text for file in done.files) and "message_field_training: train" in text
