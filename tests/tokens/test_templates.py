"""Templates: which is used, what is served, what ends a turn."""

import pytest
from kinds import KINDS, Kind

from tunesmith import Message, encode
from tunesmith.base.errors import SupervisionError, UserError
from tunesmith.tokens import rendering
from tunesmith.tokens.rendering import SHIPPED, shipped_template
from tunesmith.tokens.templates import (
    chat_template_of,
    plain_prompt,
    prompt_ids,
    stop_token_ids,
    with_args,
)

ASKED = [{"role": "user", "content": "Hello there"}]


@pytest.mark.parametrize("name", KINDS)
def test_stop_tokens_are_found_by_rendering(name):
    kind = KINDS[name]
    tokenizer = kind.tokenizer()
    found = tokenizer.convert_ids_to_tokens(list(stop_token_ids(tokenizer, kind.args)))
    assert found[0] == kind.stop and kind.eos in found


def test_turns_that_call_tools_may_end_otherwise():
    for name, stop in [("llama3", "<|eom_id|>"), ("harmony", "<|call|>")]:
        tokenizer = KINDS[name].tokenizer()
        assert stop in tokenizer.convert_ids_to_tokens(list(stop_token_ids(tokenizer)))


def test_a_template_without_a_stop_token_is_refused():
    tokenizer = KINDS["chatml"].tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ '\n' + m.role + ': ' + m.content + '.' }}{% endfor %}"
    with pytest.raises(SupervisionError, match="never learn to stop"):
        stop_token_ids(tokenizer)
    with pytest.raises(UserError, match=r"base model's own.*never learn to stop"):
        chat_template_of(tokenizer)


@pytest.mark.parametrize("name", KINDS)
def test_prompt_ids_are_what_transformers_serves(name):
    kind = KINDS[name]
    tokenizer = kind.tokenizer()
    served = tokenizer.apply_chat_template(
        ASKED,
        add_generation_prompt=True,
        chat_template=kind.template or shipped_template("alpaca"),
        return_dict=False,
        **kind.args,
    )
    assert prompt_ids(ASKED, tokenizer, template_args=kind.args) == served
    assert prompt_ids([Message("user", "Hello there")], tokenizer, template_args=kind.args) == served


def test_own_template_comes_first():
    chosen = chat_template_of(KINDS["chatml"].tokenizer())
    assert chosen.text == KINDS["chatml"].template and "own" in chosen.said


def test_a_base_without_template_gets_the_default_and_it_is_said():
    tokenizer = KINDS["no-template"].tokenizer()
    chosen = chat_template_of(tokenizer)
    assert chosen.text == shipped_template("alpaca") and "no chat template" in chosen.said
    before = encode([*ASKED, {"role": "assistant", "content": "Hi"}], tokenizer)
    tokenizer.chat_template = chosen.text
    assert encode([*ASKED, {"role": "assistant", "content": "Hi"}], tokenizer) == before


def test_shipped_templates_and_files(tmp_path):
    tokenizer = KINDS["chatml"].tokenizer()
    for name in SHIPPED:
        assert chat_template_of(tokenizer, name).text == shipped_template(name)
    file = tmp_path / "mine.jinja"
    file.write_text(KINDS["chatml"].template, encoding="utf-8")
    assert chat_template_of(tokenizer, str(file)).text == KINDS["chatml"].template


def test_a_choice_that_can_not_be(tmp_path):
    with pytest.raises(UserError, match="'chatlm' is neither a file nor one of chatml, alpaca, plain"):
        chat_template_of(KINDS["chatml"].tokenizer(), "chatlm")
    with pytest.raises(UserError, match="does not suit"):
        chat_template_of(KINDS["no-template"].tokenizer(), "chatml")


def test_a_tokenizer_without_eos_can_not_take_the_default():
    tokenizer = Kind(None, "", eos=None).tokenizer()
    with pytest.raises(UserError, match="none: set one"):
        chat_template_of(tokenizer)


def test_models_with_a_template_for_tools():
    tokenizer = KINDS["chatml"].tokenizer()
    tokenizer.chat_template = {"default": KINDS["chatml"].template, "tool_use": shipped_template("chatml")}
    tool = {"type": "function", "function": {"name": "f", "description": "", "parameters": {}}}
    assert "You can call" in tokenizer.decode(prompt_ids(ASKED, tokenizer, tools=[tool]))
    assert "You can call" not in tokenizer.decode(prompt_ids(ASKED, tokenizer))
    tokenizer.chat_template = {"rag": ""}
    with pytest.raises(UserError, match="default"):
        prompt_ids(ASKED, tokenizer)


def test_plain_prompt():
    messages = [
        Message("system", "Be brief."),
        Message("user", "Where is Oslo?"),
        Message("assistant", "Norway."),
        Message("user", "And Rome?"),
    ]
    prompt = plain_prompt(messages)
    assert prompt == "Be brief.\n\nWhere is Oslo?\n\nAnswer: Norway.\n\nAnd Rome?\n\nAnswer:"


def test_plain_template_is_the_plain_prompt_with_stop_tokens():
    tokenizer = KINDS["shipped-plain"].tokenizer()
    messages = [Message("user", "a"), Message("assistant", "b"), Message("user", "c")]
    served = tokenizer.decode(prompt_ids(messages, tokenizer))
    assert served.replace(tokenizer.eos_token, "") == plain_prompt(messages)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_templates_refuse_roles_they_do_not_know(name):
    tokenizer = KINDS[f"shipped-{name}"].tokenizer()
    with pytest.raises(SupervisionError, match="knows the roles") as refusal:
        prompt_ids([{"role": "critic", "content": "a"}], tokenizer)
    assert refusal.value.reason == "template_refused"


def test_arguments_are_saved_in_the_template():
    kind = KINDS["qwen3"]
    for value in (False, True):
        tokenizer = kind.tokenizer()
        expected = prompt_ids(ASKED, tokenizer, template_args={"enable_thinking": value})
        chosen = chat_template_of(tokenizer, template_args={"enable_thinking": value})
        assert f"enable_thinking: {str(value).lower()}" in chosen.said
        tokenizer.chat_template = chosen.text
        assert prompt_ids(ASKED, tokenizer) == expected
        other = prompt_ids(ASKED, kind.tokenizer(), template_args={"enable_thinking": not value})
        assert prompt_ids(ASKED, tokenizer, template_args={"enable_thinking": not value}) == other != expected


VALUES = [None, True, 3, -2.5, 'it\'s "é" \\ {{ 1 }} {% x %}\n', ["a", [1]], {"k": {"v": False}}]


@pytest.mark.parametrize("value", VALUES)
def test_any_plain_value_can_be_saved(value):
    tokenizer = KINDS["chatml"].tokenizer()
    template = "\n{{ x | tojson }}"
    assert tokenizer.apply_chat_template(
        ASKED, chat_template=with_args(template, {"x": value}), tokenize=False
    ) == tokenizer.apply_chat_template(ASKED, chat_template=template, tokenize=False, x=value)


def test_arguments_that_can_not_be_saved():
    with pytest.raises(UserError, match=r"no argument 'enable_thinkin'.*It reads enable_thinking"):
        chat_template_of(KINDS["qwen3"].tokenizer(), template_args={"enable_thinkin": False})
    with pytest.raises(UserError, match="can't be saved"):
        with_args("{{ x }}", {"x": object()})


def test_a_template_that_never_ends_is_ended(monkeypatch):
    monkeypatch.setattr(rendering, "SECONDS_TO_RENDER", 0.2)
    tokenizer = KINDS["chatml"].tokenizer()
    for_ever = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    tokenizer.chat_template = f"{{% if messages | length > 2 %}}{for_ever}{{% endif %}}" + tokenizer.chat_template
    messages = [{"role": role, "content": "Hello"} for role in ("user", "assistant") * 2]
    with pytest.raises(SupervisionError, match=r"within 0 s; it may\s+loop for ever") as refusal:
        encode(messages, tokenizer)
    assert refusal.value.reason == "template_too_slow"
    assert encode(messages[:2], tokenizer)


def test_a_template_that_reaches_for_what_is_forbidden_is_refused():
    tokenizer = KINDS["chatml"].tokenizer()
    tokenizer.chat_template = "{{ messages.__class__.__mro__ }}"
    with pytest.raises(UserError, match="unsafe"):
        chat_template_of(tokenizer)
