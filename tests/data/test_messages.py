import pytest

from tunesmith.base.conversation import Message
from tunesmith.data.sources.messages import (
    Rejected,
    check_values,
    parsed,
    read_calls,
    read_messages,
    read_tools,
    settle,
    without_end_marker,
)

ASK = {"role": "user", "content": "hi"}


def test_roles_of_every_dialect_are_mapped():
    words = {"human": "user", "GPT": "assistant", "developer": "system", "observation": "tool", "function": "tool"}
    for word, role in words.items():
        assert read_messages([{"from": word, "value": "x"}]) == (Message(role, "x"),)


def test_unknown_role_is_rejected_with_its_place():
    with pytest.raises(Rejected) as fault:
        read_messages([ASK, {"role": "narrator", "content": "x"}])
    assert fault.value.reason == "unknown_role"
    assert "message 2" in fault.value.detail and "narrator" in fault.value.detail


def test_typed_parts_become_content_reasoning_and_calls():
    parts = [
        {"type": "reasoning", "value": "let me see"},
        {"type": "text", "text": "One"},
        {"type": "text", "value": " moment"},
        "!",
        {"type": "tool_call", "value": '{"name": "f", "arguments": {"a": [1]}}'},
        {"type": "tool_use", "name": "g", "input": {"b": 2}},
    ]
    assert read_messages([{"role": "assistant", "content": parts}]) == (
        Message(
            "assistant",
            "One moment!",
            reasoning="let me see",
            tool_calls=({"name": "f", "arguments": {"a": [1]}}, {"name": "g", "arguments": {"b": 2}}),
        ),
    )


def test_image_parts_are_rejected_and_not_dropped():
    with pytest.raises(Rejected) as fault:
        read_messages([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}])
    assert fault.value.reason == "unsupported_part"


@pytest.mark.parametrize(
    "call",
    [
        {"name": "f", "arguments": {"a": 1}},
        {"name": "f", "arguments": '{"a": 1}'},
        {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}},
        '{"name": "f", "parameters": {"a": 1}}',
    ],
)
def test_calls_come_out_in_one_shape(call):
    assert read_calls(call) == ({"name": "f", "arguments": {"a": 1}},)
    assert read_calls([call, call]) == ({"name": "f", "arguments": {"a": 1}},) * 2


@pytest.mark.parametrize("call", ["{", "[1]", {"arguments": {}}, {"name": "f", "arguments": "[1]"}, {"name": ""}, 7])
def test_calls_that_are_none_are_rejected(call):
    with pytest.raises(Rejected) as fault:
        read_calls(call)
    assert fault.value.reason == "bad_tool_call"


def test_sharegpt_calls_join_the_assistant_message_before_them():
    call = '{"name": "f", "arguments": {}}'
    messages = read_messages(
        [
            {"from": "human", "value": "weather?"},
            {"from": "gpt", "value": "I look."},
            {"from": "function_call", "value": call},
            {"from": "function_call", "value": call},
            {"from": "observation", "value": "rain"},
            {"from": "gpt", "value": "Rain."},
        ]
    )
    assert [(m.role, m.content, len(m.tool_calls)) for m in messages] == [
        ("user", "weather?", 0),
        ("assistant", "I look.", 2),
        ("tool", "rain", 0),
        ("assistant", "Rain.", 0),
    ]


def test_openai_fields_are_kept():
    (call, result, last) = read_messages(
        [
            {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": ""}, "weight": 0},
            {"role": "tool", "content": "3", "tool_call_id": "c1", "name": "f"},
            {"role": "assistant", "content": "3", "reasoning_content": "hm", "train": True},
        ]
    )
    assert call == Message("assistant", "", tool_calls=({"name": "f", "arguments": {}},), train=False)
    assert result == Message("tool", "3", name="f", tool_call_id="c1")
    assert last == Message("assistant", "3", reasoning="hm", train=True)


@pytest.mark.parametrize("key", ["train", "weight"])
def test_train_and_weight_are_yes_or_no(key):
    for said, train in ((True, True), (1, True), (1.0, True), (False, False), (0, False), (0.0, False), (None, None)):
        assert read_messages([{"role": "assistant", "content": "a", key: said}])[0].train is train
    for bad in ("false", "true", "1", 0.3, 2, -1, [], float("nan")):
        with pytest.raises(Rejected) as fault:
            read_messages([ASK, {"role": "assistant", "content": "a", key: bad}])
        assert fault.value.reason == "bad_weight" and f"message 2: {key} is" in fault.value.detail
    assert read_messages([{"role": "assistant", "content": "a", "train": None, "weight": 0}])[0].train is False


def test_settle_mends_what_is_certain_and_says_so():
    given = [Message("system", " "), Message("user", "q"), Message("assistant", "a<|im_end|>\n"), Message("user", "?")]
    messages, changes = settle(given)
    assert messages == (Message("user", "q"), Message("assistant", "a"))
    assert len(changes) == 3


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([Message("user", "q")], "no_response"),
        ([], "no_response"),
        ([Message("assistant", "a")], "no_instruction"),
        ([Message("user", " \n"), Message("assistant", "a")], "no_instruction"),
        ([Message("user", "q"), Message("assistant", " ")], "empty_response"),
        ([Message("user", "q"), Message("assistant", "<|endoftext|>")], "empty_response"),
    ],
)
def test_conversations_with_nothing_to_train_are_rejected(messages, reason):
    with pytest.raises(Rejected) as fault:
        settle(messages)
    assert fault.value.reason == reason


@pytest.mark.parametrize(
    ("response", "bare"),
    [
        ("a<|endoftext|>", "a"),
        ("a </s> <|endoftext|>\n", "a"),
        ("a</s>", "a"),
        ("<s>gone</s>", "<s>gone</s>"),
        ("say <|endoftext|> twice", "say <|endoftext|> twice"),
        ("a < b > c ", "a < b > c "),
        ("  a\n", "  a\n"),
    ],
)
def test_end_markers_are_removed_behind_a_response_only(response, bare):
    assert without_end_marker(response) == bare


def test_tools_are_wrapped_as_templates_expect():
    bare = {"name": "f", "parameters": {}}
    wrapped = ({"type": "function", "function": bare},)
    assert read_tools([bare]) == read_tools(list(wrapped)) == read_tools('[{"name": "f", "parameters": {}}]') == wrapped
    assert read_tools("") == read_tools(None) == read_tools("[]") == ()
    for bad in ("{", 3, ["f"]):
        with pytest.raises(Rejected):
            read_tools(bad)


def test_values_that_would_break_later_are_rejected():
    deep = []
    for _ in range(500):
        deep = [deep]
    bad = {"invalid_utf8": [{"a": ["\ud800"]}, {"\udcff": 1}], "nested_too_deeply": [deep, {"a": deep}]}
    for reason, values in bad.items():
        for value in values:
            with pytest.raises(Rejected, match=reason):
                check_values(value)
    with pytest.raises(Rejected, match="invalid_utf8"):
        parsed('["\\ud800"]', "bad_json", "it")
    check_values({"a": ["\U0001f600", 1, None, {"b": 2.5}]})
