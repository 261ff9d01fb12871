import pytest

from tunesmith.base.conversation import Message
from tunesmith.base.errors import DataError
from tunesmith.data.sources.formats import MAP_KEYS, Draft, extra, labels, mapped, recognise, shape_named
from tunesmith.data.sources.messages import Rejected

PAIR = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
SHARED = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]


def turns(record):
    (draft,) = recognise(record).read(record)
    return [(message.role, message.content) for message in draft.messages]


@pytest.mark.parametrize(
    ("record", "shape", "prompt"),
    [
        ({"instruction": "q", "input": "", "output": "a"}, "alpaca", "q"),
        ({"instruction": "q", "input": "i", "output": "a"}, "alpaca", "q\n\ni"),
        ({"instruction": "", "input": "i", "output": "a"}, "alpaca", "i"),
        ({"instruction": "q", "input": None, "response": "a", "output": "a"}, "alpaca", "q"),
        ({"instruction": "q", "response": "", "output": "a", "text": "q a"}, "alpaca", "q"),
        ({"instruction": "q", "context": "c", "response": "a", "category": "x"}, "alpaca", "q\n\nc"),
        ({"prompt": "q", "completion": "a"}, "prompt_completion", "q"),
        ({"question": "q", "answer": "a"}, "prompt_completion", "q"),
        ({"question": "q", "context": "c", "answer": "a"}, "prompt_completion", "q\n\nc"),
        ({"input": "q", "output": "a"}, "prompt_completion", "q"),
        ({"inputs": "q", "targets": "a"}, "prompt_completion", "q"),
        ({"question": "q: x or y?", "choices": ["x", "y"], "answer": "a"}, "prompt_completion", "q: x or y?"),
        ({"messages": PAIR}, "messages", "q"),
        ({"conversations": SHARED}, "sharegpt", "q"),
        ({"conversations": PAIR}, "messages", "q"),
        ({"messages": '[{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]'}, "messages", "q"),
        ({"instruction": "q", "input": "i", "context": "i", "question": None, "output": "a"}, "alpaca", "q\n\ni"),
        ({"instruction": "q", "prompt": "q ", "history": "[]", "output": "a"}, "alpaca", "q"),
        ({"instruction": "q", "choices": {}, "context": float("nan"), "output": "a"}, "alpaca", "q"),
        ({"prompt": "", "input": "q", "history": None, "output": "a"}, "prompt_completion", "q"),
        ({"input": PAIR[:1], "output": PAIR[1:]}, "prompt_completion", "q"),
        ({"prompt": PAIR[:1], "completion": PAIR[1:]}, "prompt_completion", "q"),
        ({"prompt": PAIR[:1], "completion": "a"}, "prompt_completion", "q"),
    ],
)
def test_known_shapes(record, shape, prompt):
    assert recognise(record).name == shape
    assert turns(record) == [("user", prompt), ("assistant", "a")]


def test_system_and_history_become_messages():
    record = {"instruction": "q", "output": "a", "system": "be brief", "history": [["q0", "a0"]]}
    expected = [("system", "be brief"), ("user", "q0"), ("assistant", "a0"), ("user", "q"), ("assistant", "a")]
    assert turns(record) == expected
    asked = {"prompt": "q", "response": "a", "system": "be brief", "history": '[["q0", "a0"]]'}
    assert turns(asked) == expected
    assert turns({"conversations": SHARED, "system": "be brief"})[0] == ("system", "be brief")
    own = [{"role": "system", "content": "mine"}, *PAIR]
    assert turns({"messages": own, "system": "other"})[0] == ("system", "mine")


def test_conversational_completions_train_the_completion_only():
    (draft,) = recognise({"prompt": ""}).read({"prompt": [*PAIR, PAIR[0]], "completion": PAIR[1:]})
    assert [message.train for message in draft.messages] == [None, False, None, None]


def test_instances_are_rows_of_their_own():
    record = {"instruction": "q", "instances": [{"input": "i", "output": "a"}, {"input": "j", "output": ""}, 3]}
    first, second, third = recognise(record).read(record)
    assert first == Draft((Message("user", "q\n\ni"), Message("assistant", "a")))
    assert isinstance(second, Rejected) and second.reason == "empty_response"
    assert isinstance(third, Rejected) and third.reason == "unknown_shape"


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"instruction": "q"}, "no_response"),
        ({"prompt": "q", "chosen": "a", "rejected": "b"}, "no_response"),
        ({"instruction": "q", "output": "  "}, "empty_response"),
        ({"instruction": "q", "output": None}, "empty_response"),
        ({"instruction": "q", "output": float("nan")}, "empty_response"),
        ({"instruction": " ", "output": "a"}, "no_instruction"),
        ({"instruction": "q", "output": "a", "response": "b"}, "ambiguous_response"),
        ({"prompt": "q", "question": "p", "answer": "a"}, "ambiguous_prompt"),
        ({"instruction": "q", "output": {"text": "a"}}, "not_text"),
        ({"question": "q", "choices": ["x", "y"], "answer": 1}, "unread_column"),
        ({"instruction": "q", "question": "What is 2+2?", "output": "4"}, "unread_column"),
        ({"instruction": "q", "input": "i", "context": "c", "output": "a"}, "ambiguous_input"),
        ({"input": "i", "context": "c", "output": "a"}, "ambiguous_input"),
        ({"prompt": "q", "input": "i", "context": "c", "output": "a"}, "ambiguous_input"),
        ({"prompt": PAIR[:1], "context": "c", "completion": "a"}, "unread_column"),
        ({"prompt": PAIR[:1], "history": [["q0", "a0"]], "completion": "a"}, "unread_column"),
        ({"messages": []}, "no_response"),
        ({"messages": ["q", "a"]}, "not_a_message"),
        ({"messages": PAIR, "tools": "{"}, "bad_tools"),
        ({"messages": '[{"role"'}, "bad_json"),
        ({"instances": [], "instruction": "q"}, "no_response"),
        ({"turns": ["q", "r"]}, "no_response"),
        ({"text": " "}, "empty_text"),
        ({"instruction": "q", "output": "a", "history": ["x"]}, "bad_history"),
        ({"prompt": "q", "output": "a", "history": 3}, "bad_history"),
        ({"prompt": "q", "output": "a", "history": "earlier"}, "bad_history"),
    ],
)
def test_rows_that_cannot_be_trained_say_why(record, reason):
    with pytest.raises(Rejected) as fault:
        recognise(record).read(record)
    assert fault.value.reason == reason and fault.value.detail


def test_unknown_shapes_are_none():
    assert recognise({}) is None
    assert recognise({"a": 1, "b": 2}) is None


def test_numbers_are_written_as_they_are():
    assert turns({"question": 2, "answer": 10**30}) == [("user", "2"), ("assistant", str(10**30))]
    assert turns({"question": "q", "answer": False}) == [("user", "q"), ("assistant", "false")]


def test_map_names_any_columns():
    shape = mapped({"instruction": "Q", "input": "I", "response": "R", "system": "S"})
    (draft,) = shape.read({"Q": "q", "I": "i", "R": 4, "S": "s", "output": "unused"})
    assert [(m.role, m.content) for m in draft.messages] == [("system", "s"), ("user", "q\n\ni"), ("assistant", "4")]
    (draft,) = shape.read({"Q": "q", "R": "a"})
    assert len(draft.messages) == 2
    with pytest.raises(Rejected, match="missing_column"):
        shape.read({"Q": "q"})
    (draft,) = mapped({"messages": "talk"}).read({"talk": SHARED})
    assert draft.messages[1] == Message("assistant", "a")
    (draft,) = mapped({"text": "body"}).read({"body": "t"})
    assert draft.messages == (Message("text", "t"),)


def test_map_of_labels_alone_leaves_the_shape_to_be_recognised():
    assert mapped({"cluster": "kind"}) is None
    assert mapped({}) is None
    record = {"kind": "math", "dataset": "d", "template": 3, "item": ["x"], "n": 1, "deep": {}}
    assert labels(record, {"cluster": "kind"}) == {"cluster": "math", "task": "d", "phrasing": "3", "item": ""}
    assert extra(record, {"cluster": "kind"}) == {"n": 1}


def test_faults_of_a_map_name_the_remedy():
    with pytest.raises(DataError, match="Did you mean 'response'"):
        mapped({"instruction": "a", "respons": "b"})
    with pytest.raises(DataError, match="response"):
        mapped({"instruction": "a"})
    with pytest.raises(DataError, match="Did you mean 'sharegpt'"):
        shape_named("sharegpt2")
    assert set(labels({}, {})) < set(MAP_KEYS)
