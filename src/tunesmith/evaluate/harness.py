"""A loaded model as lm-evaluation-harness sees it. Imported when a benchmark is asked for, since lm-eval is an extra.

Texts become tokens, and prompts that outgrow the context are cut at their start, as in lm-eval's own `HFLM`, so that
its published figures compare.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from lm_eval.api.model import TemplateLM

from tunesmith.base.errors import UserError
from tunesmith.base.progress import progress
from tunesmith.model.beam import beam_search
from tunesmith.model.generate import CACHE_TOKENS, generate, new_tokens_limit
from tunesmith.model.likelihood import likelihoods
from tunesmith.model.parts import causal_model
from tunesmith.model.seq2seq import is_encoder_decoder
from tunesmith.tokens.rendering import ChatTemplate
from tunesmith.tokens.templates import stop_token_ids

NEW_TOKENS = 256  # where a task does not say, as in HFLM
UNLIMITED = 2048  # the context of a model that names none, as in HFLM
_LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
_WITHOUT_EFFECT = ("do_sample", "use_cache")


class Harness(TemplateLM):  # type: ignore[misc]  # lm-eval is not typed here
    """chat: prompts come through the chat template, and answers end as it ends turns."""

    def __init__(
        self, model: Any, tokenizer: Any, *, chat: bool, batch_tokens: int = CACHE_TOKENS, seed: int = 0
    ) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.backend = "seq2seq" if is_encoder_decoder(causal_model(model)) else "causal"
        self._model, self._batch_tokens, self._seed = model, batch_tokens, seed
        self._template = ChatTemplate(tokenizer) if chat else None
        self._stop = {*(stop_token_ids(tokenizer) if chat else ()), tokenizer.eos_token_id} - {None}
        context = getattr(causal_model(model).config.get_text_config(), "max_position_embeddings", None)
        self.max_length = new_tokens_limit(model, 0, context or UNLIMITED)

    @property
    def eot_token_id(self) -> int:
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        return self.eot_token_id if self.tokenizer.bos_token_id is None else int(self.tokenizer.bos_token_id)

    @property
    def tokenizer_name(self) -> str:
        return str(self.tokenizer.name_or_path).replace("/", "__")

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **options: Any) -> list[int]:
        bos = self.tokenizer.bos_token
        if add_special_tokens is None and bos is not None and string.startswith(bos):
            add_special_tokens = False  # a chat template has written it
        special = {} if add_special_tokens is None else {"add_special_tokens": add_special_tokens}
        return list(self.tokenizer.encode(string, **special))

    def apply_chat_template(self, chat_history: Sequence[Mapping[str, str]], add_generation_prompt: bool = True) -> str:
        assert self._template is not None, "lm-eval asks for a chat template only if it was told to"
        messages = self._template.messages(chat_history)
        if add_generation_prompt:
            return self._template.render(messages, None, prompt=True)
        # The answer has begun: what is rendered up to its end, without the end of its turn.
        *before, begun = messages
        return self._template.render(before, None, prompt=True) + str(begun["content"])

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], disable_tqdm: bool = False, **options: Any
    ) -> list[tuple[float, bool]]:
        """Log-likelihoods of (text, context ids, continuation ids); continuations of one context are read behind it."""
        together: dict[tuple[int, ...], list[int]] = {}
        for place, (_, context, after) in enumerate(requests):
            if len(after) > self.max_length:
                raise UserError(
                    f"a text to be scored has {len(after):,} tokens and the model's context holds {self.max_length:,}, "
                    f"so it can't be measured. Leave that task out, or choose a base with a longer context."
                )
            room = self.max_length + 1 - len(after) if self.backend == "causal" else self.max_length
            together.setdefault(tuple(context[-room:]), []).append(place)
        prompts, places = list(together), list(together.values())
        with progress("Scoring", total=len(prompts)) as bar:
            found = likelihoods(
                self._model,
                prompts,
                [[requests[place][2] for place in some] for some in places],
                batch_tokens=self._batch_tokens,
                advance=bar.advance,
            )
        results: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
        for some, likely in zip(places, found, strict=True):
            for place, one in zip(some, likely, strict=True):
                results[place] = one.log, one.greedy
        return results

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Log-likelihoods of whole texts, in windows of the model's context that predict every token once."""
        windows: list[tuple[None, list[int], list[int]]] = []
        owners: list[int] = []
        for owner, request in enumerate(requests):
            cut = _windows([self.prefix_token_id], self.tok_encode(request.args[0]), self.max_length)
            windows += [(None, before, after) for before, after in cut]
            owners += [owner] * (len(windows) - len(owners))
        totals = [0.0] * len(requests)
        for owner, (log, _) in zip(owners, self._loglikelihood_tokens(windows), strict=True):
            totals[owner] += log
        return totals

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Answers up to the first of a request's `until` texts; requests of equal settings are generated together."""
        together: dict[str, list[int]] = {}
        for place, request in enumerate(requests):
            together.setdefault(json.dumps(request.args[1], sort_keys=True, default=str), []).append(place)
        texts = [""] * len(requests)
        for places in together.values():
            prompts = [str(requests[place].args[0]) for place in places]
            for place, text in zip(places, self._answers(prompts, requests[places[0]].args[1]), strict=True):
                texts[place] = text
        return texts

    def _answers(self, prompts: Sequence[str], settings: Mapping[str, Any]) -> list[str]:
        until, most, how = _settings(settings)
        room = self.max_length - most if self.backend == "causal" else self.max_length
        if room <= 0:
            raise UserError(
                f"a task lets answers have {most:,} tokens, and the model's context holds {self.max_length:,}, so "
                f"there is no room for its prompts. Leave the task out, or choose a base with a longer context."
            )
        ids = [self.tok_encode(prompt)[-room:] for prompt in prompts]
        ends = _Until(self.tokenizer, until)
        with progress("Answering", total=len(prompts)) as bar:
            given: dict[str, Any] = {
                "stop": self._stop,
                "max_new_tokens": most,
                "advance": bar.advance,
                "finished": ends,
            }
            given |= {"batch_tokens": self._batch_tokens, **how}
            if "beams" in how:
                generated = beam_search(self._model, ids, **given)
            else:
                generated = generate(self._model, ids, seed=self._seed, **given)
        return [ends.text(tokens) for tokens in generated]


def _settings(settings: Mapping[str, Any]) -> tuple[list[str], int, dict[str, Any]]:
    """A request's `until` texts and most new tokens, and its other settings in the words of our generation."""
    left = dict(settings)
    until = left.pop("until", None) or []
    most = next((int(left.pop(name)) for name in _LENGTHS if left.get(name) is not None), NEW_TOKENS)
    sampled = left.get("do_sample", float(left.get("temperature") or 0) > 0)
    temperature = float(left.pop("temperature", 1.0) or 0) if sampled else 0.0
    left.pop("temperature", None)
    how: dict[str, Any] = {"temperature": temperature, "top_p": left.pop("top_p", 1.0), "top_k": left.pop("top_k", 0)}
    if (beams := left.pop("num_beams", 1)) > 1:
        how = {"beams": beams, "length_penalty": left.pop("length_penalty", 1.0)}
    unknown = sorted(name for name in left if name not in (*_WITHOUT_EFFECT, *_LENGTHS))
    if unknown or (sampled and "beams" in how):
        what = "sampled beams" if not unknown else f"{unknown[0]}: {left[unknown[0]]!r}"
        raise UserError(
            f"a task asks for {what} in its generation_kwargs, which Tunesmith does not do, so its figure would mean "
            f"something else. Take that out of the task, or leave the task out."
        )
    return [until] if isinstance(until, str) else list(until), most, how


class _Until:
    """Where an answer ends: before the first of some texts."""

    def __init__(self, tokenizer: Any, texts: Iterable[str]) -> None:
        self._tokenizer, self._texts = tokenizer, [text for text in texts if text]
        # A text has at most as many tokens as bytes; the token that completes it may have begun before it.
        self._reach = max((len(text.encode("utf-8", "surrogatepass")) for text in self._texts), default=0) + 1

    def __call__(self, index: int, tokens: Sequence[int]) -> bool:
        if not self._texts or not self._found(self._decoded(tokens[-self._reach :])):
            return False
        return self._found(self._decoded(tokens))

    def text(self, tokens: Sequence[int]) -> str:
        text = self._decoded(tokens)
        return text[: min((text.find(end) for end in self._texts if end in text), default=len(text))]

    def _found(self, text: str) -> bool:
        return any(end in text for end in self._texts)

    def _decoded(self, tokens: Collection[int]) -> str:
        return str(self._tokenizer.decode(list(tokens), skip_special_tokens=True))


def _windows(start: list[int], ids: list[int], longest: int) -> list[tuple[list[int], list[int]]]:
    """A text's tokens in parts (context, what is predicted from it): each token once, with as much context as fits.

    Only the last part has context that an earlier one predicted; the others begin from the token before them.
    """
    parts = []
    for first in range(0, len(ids), longest):
        after = ids[first : first + longest]
        end = first + len(after)
        before = ids[max(0, end - longest - 1) : first] if first else start
        parts.append((before, after))
    return parts
