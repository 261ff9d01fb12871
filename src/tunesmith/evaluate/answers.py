"""What a model answers to held-out rows, and the score of each answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

from tunesmith.base.conversation import Conversation, Message
from tunesmith.base.progress import progress
from tunesmith.base.random import seed_of
from tunesmith.evaluate.metrics import ModelScores, Task, scores, task_metrics
from tunesmith.evaluate.overlap import Case
from tunesmith.model.beam import beam_search
from tunesmith.model.generate import CACHE_TOKENS, generate, new_tokens_limit
from tunesmith.model.losses import causal_model
from tunesmith.model.seq2seq import is_encoder_decoder
from tunesmith.tokens.templates import plain_prompt, prompt_ids, stop_token_ids
from tunesmith.tokens.tokenise import tokenise

Style = Literal["chat", "plain"]


@dataclass(frozen=True, slots=True)
class Answer:
    """One model's answer to one row.

    item: what the row was made from; rows of one item are not independent. prompt: as a person reads it.
    stopped: the model ended the answer itself, rather than the limit of new tokens. tokens: how many it generated.
    filled: the model's context, in tokens, if the prompt leaves no room in it for even one more; else 0.
    """

    row: str
    item: str
    level: str
    cluster: str
    task: str
    metric: str
    prompt: str
    expected: str
    response: str
    score: float
    stopped: bool
    tokens: int
    filled: int = 0


@dataclass(frozen=True, slots=True)
class Decoding:
    """How tokens are chosen: greedily by default; by beam search; or drawn, where the temperature is above 0.

    length_penalty: of beams, see `beam_search`. temperature, top_p, top_k, seed: of draws, see `generate`.
    """

    beams: int = 1
    length_penalty: float = 1.0
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0

    def tokens(self, model: Any, prompts: Sequence[Sequence[int]], **options: Any) -> list[list[int]]:
        """The new tokens of every prompt; options: what `generate` and `beam_search` both take."""
        if self.beams > 1:
            return beam_search(model, prompts, beams=self.beams, length_penalty=self.length_penalty, **options)
        return generate(
            model, prompts, temperature=self.temperature, top_p=self.top_p, top_k=self.top_k, seed=self.seed, **options
        )


GREEDY = Decoding()


def answerable(row: Conversation) -> bool:
    """Whether the row ends in a response whose text can be compared: not plain text, not a call of a tool."""
    last = row.messages[-1]
    return last.role == "assistant" and bool(last.content.strip()) and not last.tool_calls and bool(row.prompt)


def sample(rows: Iterable[Conversation], count: int, *, seed: int) -> list[Conversation]:
    """`count` answerable rows (all, if there are fewer) in random order. A smaller sample is the start of a larger."""
    return sorted(filter(answerable, rows), key=lambda row: seed_of(seed, "evaluate", row.id))[:count]


def answer(
    model: Any,
    tokenizer: Any,
    levels: Mapping[str, Sequence[Conversation]],
    *,
    style: Style,
    max_new_tokens: int,
    metric: str | Mapping[str, str] = "auto",
    among: Iterable[Conversation] | None = None,
    models: Mapping[str, ModelScores] | None = None,
    decoding: Decoding = GREEDY,
    batch_tokens: int = CACHE_TOKENS,
    title: str = "Answering",
) -> list[Answer]:
    """Answers to the rows of every level, in order, each scored against the row's response.

    The rows are `answerable`; one that the chat template refuses raises SupervisionError.

    style: "chat" asks by the tokenizer's chat template, as the model is served. "plain" asks in the words of
    `plain_prompt`, for a base model that never saw a template. A base model goes on after its answer, so a plain
    answer is cut at the first line end, or at the first blank line where the expected response has several lines.
    metric: a name in `METRICS`, "auto" for what suits each task, or metrics by task and cluster (`task_metrics`).
    among: the rows that show what suits a task; by default those that are answered.
    models: what computes the metrics that a model computes, see `metrics.scores`.
    batch_tokens: as `generate` takes it.
    """
    rows = [row for level in levels.values() for row in level]
    metrics = metrics_of(rows if among is None else among, metric)  # a fault is told before anything is spent
    responses = respond(
        model,
        tokenizer,
        [row.prompt for row in rows],
        style=style,
        max_new_tokens=max_new_tokens,
        ends=["\n\n" if "\n" in row.response.strip() else "\n" for row in rows],
        tools=[row.tools for row in rows],
        decoding=decoding,
        batch_tokens=batch_tokens,
        title=title,
    )
    names = [name for name, level in levels.items() for _ in level]
    together = zip(rows, names, responses, strict=True)
    return scored([_unscored(row, name, metrics[_task(row)], response) for row, name, response in together], models)


def metrics_of(rows: Iterable[Conversation], metric: str | Mapping[str, str] = "auto") -> dict[Task, str]:
    """The metric of each task of these rows, see `task_metrics`; that of rows without a task is chosen by cluster."""
    expected: dict[Task, list[str]] = {}
    for row in filter(answerable, rows):
        expected.setdefault(_task(row), []).append(row.response)
    return task_metrics(expected, metric)


def case(answer: Answer) -> Case:
    """An answer as metrics see it."""
    return f"{answer.cluster}\x1f{answer.task}", answer.expected, answer.response


def scored(answers: Sequence[Answer], models: Mapping[str, ModelScores] | None = None) -> list[Answer]:
    """The answers, each with its score by its metric; those of one metric are scored together."""
    out = list(answers)
    for metric in dict.fromkeys(answer.metric for answer in answers):
        places = [place for place, answer in enumerate(answers) if answer.metric == metric]
        found = scores(metric, [case(answers[place]) for place in places], models)
        for place, score in zip(places, found, strict=True):
            out[place] = replace(answers[place], score=score)
    return out


@dataclass(frozen=True, slots=True)
class Response:
    """What a model wrote; stopped, tokens and filled as of `Answer`."""

    text: str
    stopped: bool
    tokens: int
    filled: int = 0


def respond(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[Message]],
    *,
    style: Style,
    max_new_tokens: int,
    ends: Sequence[str] | str = "\n\n",
    tools: Sequence[Sequence[Mapping[str, Any]]] | None = None,
    decoding: Decoding = GREEDY,
    batch_tokens: int = CACHE_TOKENS,
    title: str = "Answering",
) -> list[Response]:
    """What the model answers to the last message of each prompt.

    ends: where a plain answer ends, one text for all prompts or one for each; a chat answer ends at a stop token.
    tools: those of each prompt, for the chat template.
    """
    ends = [ends] * len(prompts) if isinstance(ends, str) else ends
    cut = _PlainEnd(tokenizer, ends) if style == "plain" else None
    encoder_decoder = is_encoder_decoder(causal_model(model))
    ids = _prompts(prompts, tools or [()] * len(prompts), tokenizer, style, encoder_decoder)
    with progress(title, total=len(prompts)) as bar:
        generated = decoding.tokens(
            model,
            ids,
            stop=stop_token_ids(tokenizer),
            max_new_tokens=max_new_tokens,
            finished=cut,
            batch_tokens=batch_tokens,
            advance=bar.advance,
        )
    responses = []
    for index, tokens in enumerate(generated):
        limit = new_tokens_limit(model, len(ids[index]), max_new_tokens)
        ended = len(tokens) < limit or (cut is not None and cut(index, tokens))
        text = cut.text(index, tokens) if cut else _text(tokenizer, tokens).strip()
        filled = 0 if limit else model.config.get_text_config().max_position_embeddings
        responses.append(Response(text, ended, len(tokens), filled))
    return responses


def _unscored(row: Conversation, level: str, metric: str, response: Response) -> Answer:
    return Answer(
        row=row.id,
        item=row.item or row.id,
        level=level,
        cluster=row.cluster or row.source,
        task=row.task,
        metric=metric,
        prompt=readable(row.prompt),
        expected=row.response,
        response=response.text,
        score=0.0,
        stopped=response.stopped,
        tokens=response.tokens,
        filled=response.filled,
    )


def readable(messages: Sequence[Message]) -> str:
    """A prompt for people: its text, with roles if there is more than one message."""
    if len(messages) == 1:
        return messages[0].content
    return "\n\n".join(f"{message.role}: {message.content}" for message in messages)


class _PlainEnd:
    """Where the answer of a base model to a plain prompt ends."""

    def __init__(self, tokenizer: Any, ends: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._ends = ends
        self._breaks = cache(lambda token: "\n" in _text(tokenizer, [token]))

    def __call__(self, index: int, tokens: Sequence[int]) -> bool:
        """Whether these tokens hold a whole answer. Only a token with a line end can have completed it."""
        return (
            bool(tokens) and self._breaks(tokens[-1]) and self._ends[index] in _text(self._tokenizer, tokens).lstrip()
        )

    def text(self, index: int, tokens: Sequence[int]) -> str:
        return _text(self._tokenizer, tokens).lstrip().partition(self._ends[index])[0].strip()


def _prompts(
    prompts: Sequence[Sequence[Message]],
    tools: Sequence[Sequence[Mapping[str, Any]]],
    tokenizer: Any,
    style: Style,
    encoder_decoder: bool,
) -> list[list[int]]:
    if style == "chat":
        return [prompt_ids(prompt, tokenizer, given) for prompt, given in zip(prompts, tools, strict=True)]
    start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    end = [tokenizer.eos_token_id] if encoder_decoder else []  # an encoder was pretrained on texts that end with it
    return [[*start, *ids, *end] for ids in tokenise(tokenizer, [plain_prompt(prompt) for prompt in prompts])]


def _text(tokenizer: Any, tokens: Sequence[int]) -> str:
    text: str = tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text


def _task(row: Conversation) -> Task:
    return row.cluster or row.source, row.task
