"""The terminal chat, with a tiny random model and with scripted answers."""

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny import byte_tokenizer, tiny_llama

from tunesmith.base.errors import UserError
from tunesmith.model.generate import generate
from tunesmith.model.load import LoadedModel
from tunesmith.serve import chat as module
from tunesmith.serve.chat import Chat, open_chat, pieces, talk
from tunesmith.tokens.templates import prompt_ids


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    """Every byte is a token, so that one character is spread over several."""
    tokenizer = byte_tokenizer()
    model = tiny_llama(len(tokenizer), max_position_embeddings=400, initializer_range=0.5)
    return LoadedModel(model.eval(), tokenizer, Path())


@pytest.fixture
def script(monkeypatch, loaded):
    """Let the model answer with these texts, in turn; the prompts it was given are returned."""
    prompts: list[str] = []

    def script(*answers: str) -> list[str]:
        waiting = iter(answers)

        def stream(model: object, prompt: list[int], **_: object) -> Iterator[int]:
            prompts.append(loaded.tokenizer.decode(prompt))
            return iter(loaded.tokenizer(next(waiting), add_special_tokens=False)["input_ids"])

        monkeypatch.setattr(module, "stream", stream)
        return prompts

    return script


def chat(loaded: LoadedModel, plain: bool = False, max_new_tokens: int = 20) -> Chat:
    return Chat(loaded, plain=plain, temperature=0.0, max_new_tokens=max_new_tokens)


def test_an_answer_is_what_generate_gives_for_the_prompt_as_served(loaded):
    ours = chat(loaded)
    said = "".join(ours.answer("What now?"))
    prompt = prompt_ids([{"role": "user", "content": "What now?"}], loaded.tokenizer)
    (expected,) = generate(loaded.model, [prompt], stop={loaded.tokenizer.eos_token_id}, max_new_tokens=20)
    text = loaded.tokenizer.decode(expected, skip_special_tokens=True)
    assert said == text.translate(module.CONTROLS)
    assert [message.role for message in ours.messages] == ["user", "assistant"]


def test_history_is_part_of_the_next_prompt_until_it_is_reset(loaded, script):
    prompts = script("One.", "Two.", "Three.")
    ours = chat(loaded)
    assert "".join(ours.answer("first")) == "One."
    assert list(ours.answer("second"))
    assert all(word in prompts[1] for word in ("first", "One.", "second"))
    ours.reset()
    assert list(ours.answer("third"))
    assert "third" in prompts[2] and "second" not in prompts[2]


def test_the_oldest_exchange_goes_when_the_context_is_full(loaded, script, capsys):
    prompts = script(*["a" * 90] * 4)
    ours = chat(loaded)
    for word in ("first", "second", "third", "fourth"):
        assert list(ours.answer(word))
    assert "first" in prompts[1] and "first" not in prompts[3] and "third" in prompts[3]
    assert "oldest exchange is left out" in capsys.readouterr().err
    with pytest.raises(UserError, match="fills the model's context"):
        list(ours.answer("x" * 500))
    assert ours.messages == []


def test_a_base_model_is_asked_plainly_and_its_answer_ends_with_its_paragraph(loaded, script):
    prompts = script(" Paris.\n\nWhat is next?")
    ours = chat(loaded, plain=True)
    assert "".join(ours.answer("The capital of France?")).strip() == "Paris."
    assert prompts[0].startswith("<s>The capital of France?")
    assert ours.messages[-1].content == "Paris."


@pytest.mark.parametrize("answer", ["\n\n Hello you.\n\nQ", "Hello you.\n\n\nQ", " Hello you.\n", "Hello you."])
@pytest.mark.parametrize("size", [1, 3, 99])
def test_a_plain_answer_is_shown_and_kept_up_to_its_blank_line(loaded, script, monkeypatch, answer, size):
    script(answer)
    parts = [answer[start : start + size] for start in range(0, len(answer), size)]
    monkeypatch.setattr(module, "pieces", lambda *_: iter(parts))
    ours = chat(loaded, plain=True)
    assert "".join(ours.answer("Well?")).strip() == "Hello you." == ours.messages[-1].content


def test_bytes_that_are_no_text_are_replaced(loaded, script, monkeypatch, capsys):
    prompts = script("One.", "Two.")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"hi\xff\n"), encoding="utf-8"))
    talk(chat(loaded))
    talk(chat(loaded), "hi\udcff")
    assert capsys.readouterr().out == "One.\nTwo.\n"
    assert all("hi\ufffd" in prompt for prompt in prompts)


def test_pieces_hold_back_characters_until_they_are_whole(loaded):
    text = "Zoë 日本 👩‍🚀!"
    ids = loaded.tokenizer(text, add_special_tokens=False)["input_ids"]
    parts = list(pieces(iter(ids), loaded.tokenizer.decode))
    assert "".join(parts) == text
    assert len(ids) > len(parts) == len(text)
    assert list(pieces(iter(ids[:3]), loaded.tokenizer.decode)) == ["Z", "o", "\ufffd"]


def test_an_answer_can_not_steer_the_terminal(loaded, script):
    script("\x1b[2Jred\x07\x9b1mer\r\n\tdone")
    assert "".join(chat(loaded).answer("hi")) == "[2Jred1mer\n\tdone"


def test_an_interrupted_answer_stays_in_the_conversation(loaded, script):
    script("A long answer.")
    ours = chat(loaded)
    answer = ours.answer("hi")
    assert next(answer) == "A"
    answer.close()
    assert [message.content for message in ours.messages] == ["hi", "A"]


def test_one_prompt_is_answered_once(loaded, script, capsys):
    script("Fine.")
    talk(chat(loaded), "How are you?")
    assert capsys.readouterr().out == "Fine.\n"


def test_over_pipes_every_line_is_a_turn(loaded, script, capsys, monkeypatch):
    prompts = script("One.", "Two.", "Three.")
    monkeypatch.setattr("sys.stdin", io.StringIO("first\n\n  second \n/reset\nthird\n/exit\nnever\n"))
    talk(chat(loaded))
    captured = capsys.readouterr()
    assert captured.out == "One.\nTwo.\nThree.\n"
    assert "a new conversation" in captured.err
    assert "first" in prompts[1] and "second" not in prompts[2]


def test_a_message_that_is_too_long_does_not_end_the_chat(loaded, script, capsys, monkeypatch):
    script("Yes.")
    monkeypatch.setattr("sys.stdin", io.StringIO("x" * 500 + "\nstill there?\n"))
    talk(chat(loaded))
    captured = capsys.readouterr()
    assert captured.out == "Yes.\n"
    assert "Shorten it" in captured.err


def test_the_tuned_model_is_asked_by_its_template_and_a_base_without_one_plainly(loaded, script, tmp_path):
    prompts = script("Yes.", "No.")
    template = loaded.tokenizer.chat_template
    for name in ("model", "base"):
        loaded.model.save_pretrained(tmp_path / name)
        loaded.tokenizer.chat_template = template if name == "model" else None
        loaded.tokenizer.save_pretrained(tmp_path / name)
    loaded.tokenizer.chat_template = template
    for trained in (tmp_path / "model", None):
        assert list(open_chat(trained, str(tmp_path / "base")).answer("Well?"))
    assert prompts == ["<s>### Instruction:\nWell?\n\n### Response:\n", "<s>Well?\n\nAnswer:"]
    with pytest.raises(UserError, match="no trained model yet"):
        open_chat(tmp_path / "run/model", "pocket")
