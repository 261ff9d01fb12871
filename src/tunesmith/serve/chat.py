"""A terminal chat: history, streamed answers, and one prompt or many lines over pipes."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from tunesmith.base.conversation import Message
from tunesmith.base.errors import UserError
from tunesmith.base.progress import say
from tunesmith.model.generate import new_tokens_limit, stream
from tunesmith.model.load import LoadedModel, load_base, load_trained
from tunesmith.model.seq2seq import is_encoder_decoder
from tunesmith.tokens.rendering import DEFAULT_SEQ2SEQ, shipped_template
from tunesmith.tokens.templates import plain_prompt, prompt_ids, stop_token_ids
from tunesmith.tokens.tokenise import tokenise

HELP = "/reset forgets the conversation, /exit ends (so does Ctrl-D), Ctrl-C stops an answer."
# What a terminal would obey: a model's answer must not move the cursor or set the window's title.
CONTROLS = dict.fromkeys([code for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"])
# What Python makes of an argument's bytes that are no text; no tokenizer takes it.
SURROGATES = re.compile("[\ud800-\udfff]")


class Chat:
    """A conversation with a model: its messages so far, and how the next answer is made.

    plain: ask by a plain prompt, as a base model without a chat template is asked; its answer ends with its paragraph.
    """

    def __init__(
        self, loaded: LoadedModel, *, plain: bool, temperature: float, max_new_tokens: int, seed: int = 0
    ) -> None:
        self.messages: list[Message] = []
        self._model, self._tokenizer = loaded.model, loaded.tokenizer
        self._plain = plain
        self._temperature, self._max_new_tokens, self._seed = temperature, max_new_tokens, seed
        self._stop = {self._tokenizer.eos_token_id} if plain else set(stop_token_ids(self._tokenizer))

    def answer(self, text: str) -> Iterator[str]:
        """Pieces of the answer as they come. Interrupted or not, what was said becomes part of the conversation.

        Raises UserError when the message alone fills the model's context.
        """
        self.messages.append(Message("user", SURROGATES.sub("\ufffd", text)))
        prompt = self._fitting_prompt()
        tokens = stream(
            self._model,
            prompt,
            stop=self._stop,
            max_new_tokens=self._max_new_tokens,
            temperature=self._temperature,
            seed=self._seed + len(self.messages),
        )
        said = ""
        try:
            for piece in pieces(tokens, self._decode):
                shown, (said, ended) = len(said), self._cut(said + piece)
                yield said[shown:].translate(CONTROLS)
                if ended:
                    break
        finally:
            self.messages.append(Message("assistant", said.strip()))

    def reset(self) -> None:
        self.messages.clear()

    def _cut(self, said: str) -> tuple[str, bool]:
        """What of it is the answer, and whether that is whole: a plain answer ends at its first blank line."""
        end = said.find("\n\n", len(said) - len(said.lstrip())) if self._plain else -1
        return (said, False) if end < 0 else (said[:end], True)

    def _decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def _fitting_prompt(self) -> list[int]:
        """The prompt's tokens; the oldest exchanges are left out once the model's context has no room for an answer."""
        prompt = self._prompt()
        while len(self.messages) > 1 and self._room(prompt) < self._max_new_tokens:
            del self.messages[:2]
            say("(the conversation has outgrown the model's context: its oldest exchange is left out)")
            prompt = self._prompt()
        if self._room(prompt) == 0:
            self.messages.clear()
            raise UserError(f"the message has {len(prompt):,} tokens, which fills the model's context. Shorten it.")
        return prompt

    def _room(self, prompt: list[int]) -> int:
        return new_tokens_limit(self._model, len(prompt), self._max_new_tokens)

    def _prompt(self) -> list[int]:
        if not self._plain:
            return prompt_ids(self.messages, self._tokenizer)
        start = self._tokenizer.bos_token_id
        return [*([] if start is None else [start]), *tokenise(self._tokenizer, [plain_prompt(self.messages)])[0]]


def open_chat(
    trained: Path | None,
    base: str,
    *,
    trust_remote_code: bool = False,
    temperature: float = 0.0,
    max_new_tokens: int = 256,
    seed: int = 0,
) -> Chat:
    """A chat with the model in the folder `trained`, which was trained on `base`, or (None) with the base model.

    A base model without a chat template is asked by a plain prompt: a template it never saw would make it look bad. An
    encoder-decoder gets what it was pretrained with, which is Tunesmith's template for such.
    """
    if trained is None:
        loaded = load_base(base, trust_remote_code=trust_remote_code)
        if is_encoder_decoder(loaded.model) and not loaded.tokenizer.chat_template:
            loaded.tokenizer.chat_template = shipped_template(DEFAULT_SEQ2SEQ)
        plain = not loaded.tokenizer.chat_template
    else:
        if not trained.is_dir():
            raise UserError(f"{trained.parent} has no trained model yet. Finish it: tunesmith run {trained.parent}")
        loaded = load_trained(trained, base=base, trust_remote_code=trust_remote_code)
        plain = False
    return Chat(loaded, plain=plain, temperature=temperature, max_new_tokens=max_new_tokens, seed=seed)


def talk(chat: Chat, prompt: str | None = None) -> None:
    """Answer one prompt, or every line of stdin in turn; answers go to stdout, everything else to stderr."""
    if prompt is not None:
        _print(chat.answer(prompt))
        return
    interactive = sys.stdin.isatty()
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")  # one stray byte must not end a long list of questions
    if interactive:
        import readline  # noqa: F401  (editing and recall of earlier lines in `input`)

        say(HELP)
    for line in _lines("> " if interactive else ""):
        if line in ("/exit", "/quit"):
            return
        if line == "/reset":
            chat.reset()
            say("(a new conversation)")
        elif line == "/help":
            say(HELP)
        elif line:
            _turn(chat, line, interactive)


def pieces(tokens: Iterator[int], decode: Callable[[list[int]], str]) -> Iterator[str]:
    """Text as tokens complete it: a character whose bytes are spread over tokens is held back until it is whole."""
    ids: list[int] = []
    done = ""
    for token in tokens:
        ids.append(token)
        text = decode(ids)
        if not text.endswith("\ufffd") and len(text) > len(done):
            yield text[len(done) :]
            done = text
    if ids and (text := decode(ids)) != done:
        yield text[len(done) :]


def _turn(chat: Chat, line: str, interactive: bool) -> None:
    """One turn of many: a message that can't be answered ends the turn, not the chat; so does Ctrl-C at a terminal."""
    try:
        _print(chat.answer(line))
    except UserError as error:
        say(f"({error})")
    except KeyboardInterrupt:
        if not interactive:
            raise
        print()


def _print(answer: Iterator[str]) -> None:
    for piece in answer:
        print(piece, end="", flush=True)
    print(flush=True)


def _lines(prompt: str) -> Iterator[str]:
    """Lines of stdin until its end, or until Ctrl-C at the prompt."""
    while True:
        try:
            yield input(prompt).strip()
        except EOFError:
            if prompt:
                print()
            return
        except KeyboardInterrupt:
            print()
            return
