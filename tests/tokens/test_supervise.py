"""Supervision is exact or refused, for every kind of template. The oracle below uses nothing of the implementation:
it asks transformers what a server feeds the model, and checks that the sequence starts with just that."""

import random
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from kinds import KINDS, Kind
from tokenizers import AddedToken, normalizers

import tunesmith
from tunesmith import Conversation, Message, encode
from tunesmith.base.errors import SupervisionError, UserError
from tunesmith.tokens import supervise
from tunesmith.tokens.many import encode_all, encode_many
from tunesmith.tokens.one_pass import OnePass
from tunesmith.tokens.supervise import Rules, encode_conversation, encode_text

CONTENTS = (
    "Hello there, where do we go?",
    "I'm fine.\n\nThank you.",
    "",
    " ",
    "\n",
    "\n\nYes",
    "  two spaces before",
    "a line break after\n",
    "spaces after   ",
    "\tdef f(x):\n\t\treturn x\n",
    "naïve café 🙂👩‍👩‍👧 é 你好",
    "assistant\n",
    "### Response:\nYes",
    "ASSISTANT: yes USER: no",
    "[ INST ] user model Zq7answer Zq7question",
    "<think",
    "12 + 30 = 42",
    "x" * 300,
)


def conversations(kind, count, seed=0):
    """Random conversations that are well-formed for a template."""
    chance = random.Random(seed)
    for _ in range(count):
        messages = (
            [{"role": "system", "content": chance.choice(CONTENTS)}] if kind.system and chance.random() < 0.3 else []
        )
        for _ in range(chance.choice((1, 1, 2, 3))):
            messages.append({"role": "user", "content": chance.choice(CONTENTS)})
            answer = {"role": "assistant", "content": chance.choice(CONTENTS)}
            if kind.reasoning and chance.random() < 0.4:
                answer["reasoning_content"] = chance.choice(CONTENTS)
            if kind.tools and chance.random() < 0.2:
                function = {"name": "get_weather", "arguments": {"city": chance.choice(CONTENTS)}}
                answer["tool_calls"] = [{"type": "function", "function": function}]
            messages.append(answer)
        yield messages


def served(messages, tokenizer, kind, prompt):
    return tokenizer.apply_chat_template(
        messages,
        chat_template=kind.template or tunesmith.tokens.rendering.shipped_template("alpaca"),
        add_generation_prompt=prompt,
        tokenize=False,
        **kind.args,
    )


def check(messages, tokenizer, kind, sequences, stops):
    """Guarantees 1 and 2 of exact supervision, directly."""
    seen = []
    for sequence in sequences:
        trained = np.zeros(len(sequence), dtype=bool)
        for message, start, end in sequence.turns:
            prompt = served(messages[:message], tokenizer, kind, prompt=True)
            assert sequence.ids[:start].tolist() == tokenizer(prompt, add_special_tokens=False)["input_ids"]
            whole = served(messages[: message + 1], tokenizer, kind, prompt=False)
            assert whole.startswith(prompt)
            answer = whole[len(prompt) :]
            first = min((answer.index(stop) + len(stop) for stop in stops if stop in answer), default=None)
            answer = answer + kind.stop if first is None else answer[:first]
            expected = tokenizer(prompt + answer, add_special_tokens=False)["input_ids"]
            assert tokenizer.decode(sequence.ids[:end]) == tokenizer.decode(expected)
            ends = tokenizer.convert_ids_to_tokens(sequence.ids[start:end].tolist())
            assert ends[-1] in stops and not set(ends[:-1]) & stops
            trained[start:end] = True
            seen.append(message)
        assert np.array_equal(trained, sequence.supervised)
        assert sequence.turns[-1][2] == len(sequence)
    assert seen == [index for index, message in enumerate(messages) if message["role"] == "assistant"]


def try_all(kind, count, seed):
    tokenizer = kind.tokenizer()
    stops = {kind.stop, "<|eom_id|>", "<|call|>"}
    refused = []
    for messages in conversations(kind, count, seed):
        try:
            sequences = encode(messages, tokenizer, template_args=kind.args)
        except SupervisionError as error:
            refused.append((error.reason, str(error), messages))
            continue
        check(messages, tokenizer, kind, sequences, stops)
    return refused


@pytest.mark.parametrize("name", KINDS)
def test_exact_for_every_kind_of_template(name):
    assert try_all(KINDS[name], 60, seed=0) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_exact_for_a_thousand_conversations(name):
    refused = try_all(KINDS[name], 1000, seed=1)
    assert len(refused) <= 20, refused[:3]


@pytest.mark.parametrize("name", KINDS)
def test_one_tokenisation_gives_what_the_definition_gives(name, monkeypatch):
    kind = KINDS[name]
    tokenizer = kind.tokenizer()
    rows = [
        Conversation(f"r:{index}", tuple(message(m) for m in messages))
        for index, messages in enumerate(conversations(kind, 60, seed=2))
    ]
    rows.insert(7, Conversation.from_text("t:0", "The ship left the harbour."))

    rules = Rules(template_args=kind.args, max_length=400)

    def outcome():
        dropped = []
        kept = encode_many(
            rows,
            tokenizer,
            rules,
            on_drop=lambda row, error: dropped.append((row.id, error.reason, str(error))),
        )
        return [(row.id, sequences) for row, sequences in kept], dropped

    fast = outcome()
    monkeypatch.setattr(OnePass, "encode", lambda _, conversations: [None for _ in conversations])
    assert fast == outcome()
    for row in rows:
        one = None
        try:
            one = encode_conversation(row, tokenizer, rules)
        except SupervisionError as error:
            assert (row.id, error.reason, str(error)) in fast[1]
        assert one == dict(fast[0]).get(row.id)


def message(m):
    calls = tuple(call["function"] for call in m.get("tool_calls", ()))
    return Message(m["role"], m["content"], reasoning=m.get("reasoning_content"), tool_calls=calls)


@pytest.mark.parametrize("name", ["chatml", "gemma", "glm4", "llama3", "vicuna-bytes"])
def test_most_conversations_take_one_sequence(name, monkeypatch):
    """Turns of a template that doesn't rewrite history share a sequence, without falling back on the definition."""
    kind = KINDS[name]
    monkeypatch.setattr(supervise.Supervisor, "_turn_by_turn", lambda *_: pytest.fail("not proven at once"))
    (sequence,) = encode(turns("Hello", "Hi there", "And?", "Well."), kind.tokenizer())
    assert [message for message, _, _ in sequence.turns] == [1, 3]


def turns(*contents, **first):
    roles = ("user", "assistant")
    return [{"role": roles[index % 2], "content": content, **first} for index, content in enumerate(contents)]


def test_golden_chatml():
    tokenizer = KINDS["chatml"].tokenizer()
    (sequence,) = encode(turns("Hello", "Hi", "And?", ""), tokenizer)
    marked = "".join(
        f"[{text}]" if trained else text
        for text, trained in zip((tokenizer.decode([i]) for i in sequence.ids), sequence.supervised, strict=True)
    ).replace("][", "")
    assert marked == (
        "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n[Hi<|im_end|>]\n"
        "<|im_start|>user\nAnd?<|im_end|>\n<|im_start|>assistant\n[<|im_end|>]"
    )
    assert sequence.ids.dtype == np.int32 and sequence.supervised.dtype == bool


def test_reasoning_that_history_drops_gets_sequences_of_its_own():
    tokenizer = KINDS["qwen3"].tokenizer()
    messages = turns("Hello", "Hi", "And?", "Well.")
    messages[1]["reasoning_content"] = messages[3]["reasoning_content"] = "Let me think."
    first, second = encode(messages, tokenizer)
    assert tokenizer.decode(first.ids[first.supervised]) == "<think>\nLet me think.\n</think>\n\nHi<|im_end|>"
    assert "think>" not in tokenizer.decode(second.ids[~second.supervised])
    assert tokenizer.decode(second.ids[second.supervised]) == "<think>\nLet me think.\n</think>\n\nWell.<|im_end|>"


def test_no_second_bos():
    kind = KINDS["llama3"]
    tokenizer = kind.tokenizer()
    (sequence,) = encode(turns("Hello", "Hi"), tokenizer)
    assert sequence.ids.tolist().count(tokenizer.bos_token_id) == 1


def test_which_messages_are_supervised():
    tokenizer = KINDS["chatml"].tokenizer()
    messages = turns("a", "b", "c", "d", "e", "f")

    def supervised(messages, **options):
        return [turn[0] for sequence in encode(messages, tokenizer, **options) for turn in sequence.turns]

    assert supervised(messages) == [1, 3, 5]
    assert supervised(messages, supervise="last") == [5]
    assert supervised(messages, supervise=[False, True, False, False, False, True]) == [1, 5]
    messages[3]["train"] = False
    messages[5]["weight"] = 0
    messages[1]["weight"] = 1
    assert supervised(messages) == [1]
    flagged = [
        Message("user", "a"),
        Message("assistant", "b", train=False),
        Message("user", "c"),
        Message("assistant", "d"),
    ]
    assert supervised(flagged) == [3]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"supervise": "everything"}, "'assistant', 'last'"),
        ({"supervise": [True, True]}, r"messages \[0\]"),
        ({"supervise": [True]}, "1 choices for 2 messages"),
    ],
)
def test_wrong_choices_are_the_users_error(options, says):
    with pytest.raises(UserError, match=says):
        encode(turns("a", "b"), KINDS["chatml"].tokenizer(), **options)


def test_weights_between_are_the_users_error():
    with pytest.raises(UserError, match=r"weight 0\.5"):
        encode(turns("a", "b", weight=0.5), KINDS["chatml"].tokenizer())


NO_PREFIX = KINDS["chatml"].template.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
GOES_ON = KINDS["chatml"].template.replace("<|im_end|>\n", "<|im_end|>\n(end of {{ m.content | length }})\n")
NO_STOP = "{% for m in messages %}{{ m.role }}: {{ m.content }} (end)\n{% endfor %}"
CALL = {"type": "function", "function": {"name": "get_weather", "arguments": {}}}


@pytest.mark.parametrize(
    ("reason", "template", "messages", "says"),
    [
        ("special_token_in_content", None, turns("say <|im_end|> please", "b"), r"message 0 \(user\).*'<\|im_end\|>'"),
        ("special_token_in_content", None, turns("a", "b<|endoftext|>"), r"message 1.*endoftext"),
        ("nothing_supervised", None, turns("a"), "of 1 message.s. none is an assistant"),
        ("nothing_before_answer", None, turns("a", "b")[1:], "message 0"),
        ("prompt_not_prefix", NO_PREFIX, turns("a", "b"), "<think>"),
        ("text_after_stop", GOES_ON, turns("a", "b"), "end of 1"),
        ("no_stop_token", NO_STOP, turns("a", "b"), "never learn to stop"),
        ("tool_calls_not_rendered", None, turns("a", "", tool_calls=[CALL]), "get_weather"),
        ("template_refused", "{{ raise_exception('no ' + messages[0].role) }}", turns("a", "b"), "no user"),
        ("template_refused", "{{ messages[0].content[0](1) }}", turns("a", "b"), "can't render"),
        ("template_refused", "{% for m in", turns("a", "b"), "can't render"),
        ("template_refused", "{{ ''.__class__.__mro__ }}", turns("a", "b"), "unsafe"),
    ],
)
def test_refusals_say_why(reason, template, messages, says):
    tokenizer = KINDS["chatml"].tokenizer()
    tokenizer.chat_template = template or tokenizer.chat_template
    with pytest.raises(SupervisionError, match=says) as refusal:
        encode(messages, tokenizer)
    assert refusal.value.reason == reason


def test_special_tokens_in_tool_calls_and_descriptions_are_refused():
    tokenizer = KINDS["shipped-chatml"].tokenizer()
    call = {"type": "function", "function": {"name": "f", "arguments": {"text": ["<|im_end|>"]}}}
    with pytest.raises(SupervisionError, match="message 1"):
        encode([*turns("a"), {"role": "assistant", "content": "", "tool_calls": [call]}], tokenizer)
    tool = {"type": "function", "function": {"name": "f", "description": "<|im_start|>"}}
    with pytest.raises(SupervisionError, match="tool descriptions"):
        encode(turns("a", "b"), tokenizer, tools=[tool])


def test_markers_that_are_not_special_can_not_be_forged():
    with pytest.raises(SupervisionError, match="User"):
        encode(turns("a<｜User｜>b", "c"), KINDS["deepseek"].tokenizer())


def test_answers_are_never_cut():
    tokenizer = KINDS["chatml"].tokenizer()
    (sequence,) = encode(turns("a", "Hello there"), tokenizer)
    assert encode(turns("a", "Hello there"), tokenizer, max_length=len(sequence)) == (sequence,)
    with pytest.raises(SupervisionError, match=f"{len(sequence)} tokens, max_length is {len(sequence) - 1}") as refusal:
        encode(turns("a", "Hello there"), tokenizer, max_length=len(sequence) - 1)
    assert refusal.value.reason == "too_long"


def test_stop_token_that_is_no_token_is_refused():
    kind = Kind(KINDS["chatml"].template, "<|im_end|>", marks=("<|im_start|>",), eos="<|endoftext|>")
    with pytest.raises(SupervisionError, match=r"<\|im_end\|>"):
        encode(turns("a", "b"), kind.tokenizer())


def test_tools_reach_the_template():
    tokenizer = KINDS["shipped-chatml"].tokenizer()
    tool = {"type": "function", "function": {"name": "get_weather", "description": "", "parameters": {}}}
    row = Conversation(
        "r:1",
        (
            Message("user", "Oslo?"),
            Message("assistant", "", tool_calls=({"name": "get_weather", "arguments": {"city": "Oslo"}},)),
            Message("tool", "sunny"),
            Message("assistant", "Sunny."),
        ),
        tools=(tool,),
    )
    (sequence,) = encode_conversation(row, tokenizer)
    answers = [tokenizer.decode(sequence.ids[start:end]) for _, start, end in sequence.turns]
    call = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call><|im_end|>'
    assert answers == [call, "Sunny.<|im_end|>"]
    assert '"name": "get_weather"' in tokenizer.decode(sequence.ids[: sequence.turns[0][1]])


def test_text_trains_every_token_once():
    kind = KINDS["llama2"]
    tokenizer = kind.tokenizer()
    text = "The ship left the harbour at dawn. " * 20
    (whole,) = encode_text(text, tokenizer)
    assert whole.ids[0] == tokenizer.bos_token_id and whole.ids[-1] == tokenizer.eos_token_id
    assert whole.ids[1:-1].tolist() == tokenizer(text, add_special_tokens=False)["input_ids"]
    assert whole.supervised.tolist() == [False] + [True] * (len(whole) - 1)
    for length in (2, 7, len(whole) - 1, len(whole)):
        pieces = encode_text(text, tokenizer, max_length=length)
        assert all(len(piece) <= length for piece in pieces)
        assert np.concatenate([piece.ids[piece.supervised] for piece in pieces]).tolist() == whole.ids[1:].tolist()
        assert all(before.ids[-1] == after.ids[0] for before, after in pairwise(pieces))


def test_text_that_can_not_be_supervised():
    tokenizer = KINDS["chatml"].tokenizer()
    for text, reason in [("", "nothing_supervised"), ("a<|im_start|>b", "special_token_in_content")]:
        with pytest.raises(SupervisionError) as refusal:
            encode_text(text, tokenizer)
        assert refusal.value.reason == reason


def test_text_needs_no_chat_template():
    tokenizer = KINDS["chatml"].tokenizer()
    tokenizer.chat_template = NO_STOP
    assert len(encode_text("Hello there", tokenizer)) == 1


def test_truncation_and_padding_of_the_tokenizer_do_not_matter():
    tokenizer = KINDS["chatml"].tokenizer()
    expected = encode(turns("Hello", "Hi there"), tokenizer)
    tokenizer.backend_tokenizer.enable_truncation(3)
    tokenizer.backend_tokenizer.enable_padding(length=50)
    assert encode(turns("Hello", "Hi there"), tokenizer) == expected


def test_encoding_leaves_tokenizer_and_messages_as_they_were():
    tokenizer = KINDS["no-template"].tokenizer()
    messages = turns("a", "b", train=True)
    encode(messages, tokenizer)
    assert tokenizer.chat_template is None and messages == turns("a", "b", train=True)


def test_package_imports_neither_torch_nor_transformers():
    code = (
        "import sys, tunesmith; assert tunesmith.__version__; dir(tunesmith); tunesmith.Message;"
        "assert not {'torch', 'transformers'} & set(sys.modules); from tunesmith import encode; assert callable(encode)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="encode"):
        tunesmith.nothing  # noqa: B018


def test_oldest_turns_make_way_if_wanted():
    tokenizer = KINDS["chatml"].tokenizer()
    system = {"role": "system", "content": "Be kind."}
    conversation = [system, *turns(*(text for number in range(6) for text in (f"Question {number}", "Well. " * 9)))]
    whole = encode(conversation, tokenizer)[0]
    for most in range(len(whole), 20, -7):
        try:
            (sequence,) = encode(conversation, tokenizer, max_length=most, too_long="oldest_turns")
        except SupervisionError as error:
            assert error.reason == "too_long"
            (last,) = encode([system, *conversation[-2:]], tokenizer)
            assert len(last) > most  # even the last exchange alone
            continue
        first = sequence.turns[0][0] - 1  # the oldest question that is left
        (expected,) = encode([system, *conversation[first:]], tokenizer)
        assert np.array_equal(sequence.ids, expected.ids) and np.array_equal(sequence.supervised, expected.supervised)
        assert [message for message, _, _ in sequence.turns] == list(range(first + 1, 13, 2))
        if first > 1:
            assert len(encode([system, *conversation[first - 2 :]], tokenizer)[0]) > most  # no more went than had to
    with pytest.raises(UserError, match="too_long is 'cut'"):
        encode(conversation, tokenizer, too_long="cut")


def test_rows_that_were_shortened_are_told():
    tokenizer = KINDS["chatml"].tokenizer()
    texts = [["a", "b"], ["Long " * 30, "b", "c", "d"]]
    rows = [Conversation(str(n), tuple(message(m) for m in turns(*text))) for n, text in enumerate(texts)]
    told = []
    found = list(
        encode_many(
            rows,
            tokenizer,
            Rules(max_length=24, too_long="oldest_turns"),
            on_drop=lambda row, error: pytest.fail(str(error)),
            on_shorten=lambda row, left_out: told.append((row.id, left_out)),
        )
    )
    assert told == [("1", 2)] and [row.id for row, _ in found] == ["0", "1"]


THINK = ("~<think>", "~</think>")
R1 = """{% for m in messages %}{% if m.role == 'user' %}<|im_start|>user
{{ m.content }}<|im_end|>
{% else %}<|im_start|>assistant
{{ m.content.split('</think>')[-1] }}<|im_end|>
{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
<think>
{% endif %}"""
SKIPS = R1.replace("<think>\n{%", "<think>\n\n</think>\n\n{%").replace("[-1] }}", "[-1].lstrip('\n') }}")
NEMO = """<s>{% set ns = namespace(system='') %}{% for m in messages %}\
{% if m.role == 'system' %}{% set ns.system = m.content %}\
{% elif m.role == 'user' %}[INST]{% if loop.last and ns.system %}{{ ns.system }}

{% endif %}{{ m.content }}[/INST]{% else %}{{ m.content }}</s>{% endif %}{% endfor %}"""
FALCON = """{% for m in messages %}{{ m.role | capitalize }}: {{ m.content.strip() }}

{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"""
PARTS = """{% for m in messages %}<|im_start|>{{ m.role }}
{% for p in m.content %}{{ p.text }}{% endfor %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
IM_KIND = KINDS["chatml"].marks
OTHERS = {
    "r1": Kind(R1, "<|im_end|>", marks=(*IM_KIND, *THINK)),
    "skips thinking": Kind(SKIPS, "<|im_end|>", marks=(*IM_KIND, *THINK)),
    "nemo": Kind(NEMO, "</s>", marks=("<s>", "[INST]", "[/INST]"), eos="</s>", bos="<s>"),
    "falcon": Kind(FALCON, "<|endoftext|>"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_turns_that_the_answered_conversation_shows_otherwise(name):
    """The prompt is as served, token by token, and the answer is what the server has to get back after it."""
    kind, chance = OTHERS[name], random.Random(3)
    tokenizer = kind.tokenizer()
    for _ in range(100):
        texts = [chance.choice(CONTENTS) for _ in range(2 * chance.randint(1, 3))]
        messages = turns(*texts)
        if name == "nemo":
            messages.insert(0, {"role": "system", "content": chance.choice(CONTENTS)})
        thoughts = ["We think:\n\n" + chance.choice(CONTENTS).strip() for _ in messages]
        for message, thought in zip(messages, thoughts, strict=False):
            if name == "r1" and message["role"] == "assistant":
                in_content = chance.random() < 0.5
                raw = f"<think>\n{thought.strip()}\n</think>\n\n{message['content'].lstrip()}"
                message |= {"content": raw} if in_content else {"reasoning_content": thought}
        seen = []
        for sequence in encode(messages, tokenizer):
            for index, start, end in sequence.turns:
                prompt = served(messages[:index], tokenizer, kind, prompt=True)
                assert sequence.ids[:start].tolist() == tokenizer(prompt, add_special_tokens=False)["input_ids"]
                assert sequence.ids[end - 1] == tokenizer.convert_tokens_to_ids(kind.stop)
                answer, content = tokenizer.decode(sequence.ids[start : end - 1]), texts[index - (name == "nemo")]
                expected = {
                    "r1": f"{thoughts[index].strip()}\n</think>\n\n{content.lstrip()}",
                    "skips thinking": content.lstrip("\n"),
                    "nemo": content,
                    "falcon": " " + content.strip(),
                }[name]
                assert answer == expected
                seen.append(index)
        assert seen == [index for index, message in enumerate(messages) if message["role"] == "assistant"]


def test_opened_reasoning_needs_reasoning():
    with pytest.raises(SupervisionError, match="<think>") as refusal:
        encode(turns("a", "b"), OTHERS["r1"].tokenizer())
    assert refusal.value.reason == "prompt_not_prefix"


def test_templates_that_take_parts():
    tokenizer = Kind(PARTS, "<|im_end|>", marks=IM_KIND).tokenizer()
    expected = encode(turns("Hello", "Hi"), KINDS["chatml"].tokenizer())
    rows = tuple(message(m) for m in turns("Hello", "Hi"))
    assert encode(rows, tokenizer) == expected
    parts = [{**m, "content": [{"type": "text", "text": m["content"]}]} for m in turns("Hello", "Hi")]
    assert encode(parts, tokenizer) == expected
    with pytest.raises(SupervisionError, match="list of parts") as refusal:
        encode(turns("Hello", "Hi"), tokenizer)
    assert refusal.value.reason == "content_not_rendered"


def test_a_header_may_end_a_tool_call():
    tokenizer = KINDS["glm4"].tokenizer()
    messages = turns("Weather?", "", "So?", "Cold.")
    messages[1]["tool_calls"] = [CALL]
    messages[2]["role"] = "tool"
    sequences = encode(messages, tokenizer)
    ends = [tokenizer.convert_ids_to_tokens(int(s.ids[end - 1])) for s in sequences for _, _, end in s.turns]
    assert ends == ["<|observation|>", "<|user|>"]


# The header is set otherwise in the prompt than in history, and what stands before </think> is left out of history.
STRAY = """{% for m in messages %}{% if m.role == 'user' %}<|im_start|>user
{{ m.content }}<|im_end|>
{% else %}    <|im_start|>assistant  </think> {{ m.content.split('</think>')[-1] }}<|im_end|>
{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant</think>{% endif %}"""
CALLS = SKIPS.replace(
    "<|im_start|>assistant\n{{ m.content",
    "<|im_start|>assistant\n{% for c in m.tool_calls %}<call>{{ c.function | tojson }}</call>{% endfor %}{{ m.content",
)


def test_a_header_that_is_only_set_otherwise_is_never_trained():
    tokenizer = Kind(STRAY, "<|im_end|>", marks=(*IM_KIND, *THINK)).tokenizer()
    with pytest.raises(SupervisionError, match="<\\|im_start\\|>assistant") as refusal:
        encode(turns("a", "b"), tokenizer)
    assert refusal.value.reason == "prompt_not_prefix"


def test_a_turn_that_begins_as_the_omitted_mark_does_is_whole():
    tokenizer = Kind(CALLS, "<|im_end|>", marks=(*IM_KIND, *THINK)).tokenizer()
    messages = turns("Weather?", "")
    messages[1]["tool_calls"] = [{"type": "function", "function": {"name": "f", "arguments": {"city": "Oslo"}}}]
    (sequence,) = encode(messages, tokenizer)
    expected = '<call>{"name": "f", "arguments": {"city": "Oslo"}}</call><|im_end|>'
    assert tokenizer.decode(sequence.ids[sequence.supervised]) == expected


def test_every_call_and_its_arguments_have_to_be_shown():
    def call(name, **arguments):
        return {"type": "function", "function": {"name": name, "arguments": arguments}}

    messages = turns("Weather?", "I ask get_weather.")
    messages[1]["tool_calls"] = [call("get_weather", city="Oslo")]
    first = KINDS["glm4"].tokenizer()  # shows the first call alone
    bare = KINDS["glm4"].tokenizer()
    bare.chat_template = bare.chat_template.replace(" + called.arguments | tojson", "")
    two = [*messages[:1], {**messages[1], "content": "", "tool_calls": [call("a", x="1"), call("a", x="2")]}]
    for given, tokenizer in ((messages, KINDS["chatml"].tokenizer()), (two, first), (messages, bare)):
        with pytest.raises(SupervisionError) as refusal:
            encode(given, tokenizer)
        assert refusal.value.reason == "tool_calls_not_rendered"
    assert encode(messages, first)


def test_what_the_template_leaves_out_is_remarked():
    messages = turns("Weather?", "Cold.")
    messages[1]["reasoning_content"] = "It is winter."
    rows = [
        Conversation("r:1", tuple(message(m) for m in messages)),
        Conversation("r:2", tuple(map(message, turns("a", "b")))),
    ]
    for kind, omits in (("chatml", ("reasoning",)), ("qwen3", ())):
        remarks = [remarks for _, remarks in encode_all(rows, KINDS[kind].tokenizer())]
        assert [remark.omits for remark in remarks] == [omits, ()]


def test_special_tokens_that_normalising_makes_are_refused():
    tokenizer = KINDS["chatml"].tokenizer()
    backend = tokenizer.backend_tokenizer
    backend.normalizer = normalizers.NFKC()
    tokenizer.add_tokens([AddedToken("<|x|>", special=True, normalized=True)])
    text = "a＜|x|＞b"
    assert tokenizer.convert_tokens_to_ids("<|x|>") in tokenizer(text, add_special_tokens=False)["input_ids"]
    with pytest.raises(SupervisionError, match="special token") as refusal:
        encode(turns(text, "b"), tokenizer)
    assert refusal.value.reason == "special_token_in_content"
    assert encode(turns("a＜b", "c"), tokenizer)


@pytest.mark.parametrize("flag", [{"train": 0}, {"train": np.False_}, {"weight": 0.0}, {"train": False}])
def test_flags_that_leave_a_message_untrained(flag):
    messages = turns("a", "secret", "b", "c")
    messages[1] |= flag
    assert [message for message, _, _ in encode(messages, KINDS["chatml"].tokenizer())[0].turns] == [3]


def test_public_input_that_is_no_conversation():
    tokenizer = KINDS["chatml"].tokenizer()
    for messages, reason in ((turns("a", "half \ud800"), "bad_content"), (turns("a", 5), "bad_content")):
        with pytest.raises(SupervisionError) as refusal:
            encode(messages, tokenizer)
        assert refusal.value.reason == reason
    for options in ({"messages": ["a"]}, {"messages": turns("a", "b"), "max_length": 1}):
        with pytest.raises(UserError):
            encode(**{"tokenizer": tokenizer, **options})
    messages = turns("a", "b")
    messages[1]["train"] = "false"
    with pytest.raises(UserError, match="train 'false'"):
        encode(messages, tokenizer)


def test_what_stands_before_the_first_question_is_no_oldest_turn():
    tokenizer = KINDS["chatml"].tokenizer()
    rules = {"role": "developer", "content": "RULES"}
    long = [rules, *turns("Long " * 30, "a", "b", "c")]
    (sequence,) = encode(long, tokenizer, max_length=40, too_long="oldest_turns")
    (expected,) = encode([rules, *long[3:]], tokenizer)
    assert np.array_equal(sequence.ids, expected.ids)


def test_a_header_that_is_eos_ends_no_call_it_does_not_follow():
    """In history the call is followed by its result, not by the header that follows an answer."""
    template = (
        "{% for m in messages %}{% if m.role == 'user' %}<|u|>{{ m.content }}{% elif m.role == 'tool' %}"
        "{{ m.content }}{% elif m.tool_calls %}<|a|>{{ m.tool_calls[0].function | tojson }}<|call|>"
        "{% else %}<|a|>{{ m.content }}{% endif %}{% endfor %}{% if add_generation_prompt %}<|a|>{% endif %}"
    )
    tokenizer = Kind(template, "<|u|>", marks=("<|u|>", "<|a|>", "<|call|>"), eos="<|u|>").tokenizer()
    (sequence,) = encode(turns("a", "b"), tokenizer)
    assert tokenizer.decode(sequence.ids[sequence.supervised]) == "b<|u|>"
    messages = turns("Weather?", "")
    messages[1]["tool_calls"] = [CALL]
    with pytest.raises(SupervisionError, match="would not learn to stop") as refusal:
        encode(messages, tokenizer)
    assert refusal.value.reason == "no_stop_token"


def test_special_tokens_that_are_only_seen_may_be_kept():
    """As a server shows them: they are special tokens there too. What is trained never holds one."""
    tokenizer = KINDS["chatml"].tokenizer()
    messages = turns("say <|im_end|> now", "a", "b", "c")
    with pytest.raises(SupervisionError, match="special token"):
        encode(messages, tokenizer)
    sequences = encode(messages, tokenizer, special_tokens="keep_seen")
    check(messages, tokenizer, KINDS["chatml"], sequences, {"<|im_end|>"})
    with pytest.raises(SupervisionError, match=r"message 1 .*special token") as refusal:
        encode(turns("a", "say <|im_end|>"), tokenizer, special_tokens="keep_seen")
    assert refusal.value.reason == "special_token_in_content"
    rows = [Conversation(str(n), tuple(map(message, given))) for n, given in enumerate([messages, turns("a", "b")])]
    found = encode_all(rows, tokenizer, Rules(special_tokens="keep_seen"))
    assert [remarks.special for _, remarks in found] == [True, False]
