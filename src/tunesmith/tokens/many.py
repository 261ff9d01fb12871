"""Many conversations at once, in several processes: `supervise` for data sets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tunesmith.base.conversation import Conversation
from tunesmith.base.errors import SupervisionError
from tunesmith.base.parallel import map_chunks
from tunesmith.tokens.encoded import Encoded, Span
from tunesmith.tokens.supervise import NOTHING, Outcome, Remarks, Row, Rules, Supervisor
from tunesmith.tokens.tokenise import Tokenise, bulk

CONVERSATIONS_AT_ONCE = 256
WORTH_A_FASTER_TOKENIZER = 2_000  # rows
ROWS_COMPARED = 64


def encode_many(
    conversations: Sequence[Conversation],
    tokenizer: Any,
    rules: Rules | None = None,
    *,
    on_drop: Callable[[Conversation, SupervisionError], None],
    on_shorten: Callable[[Conversation, int], None] | None = None,
    workers: int = 1,
) -> Iterator[tuple[Conversation, tuple[Encoded, ...]]]:
    """`encode_conversation` for many rows, in their order, at about the speed of the tokenizer alone.

    Rows that can't be supervised exactly go to `on_drop`, with the error that `encode_conversation` raises for them,
    and are not among the results. Of rows that lost oldest turns, `on_shorten` gets the number of messages left out.
    A few hundred rows are encoded at a time, in `workers` processes; the results don't depend on their number.
    """
    outcomes = encode_all(conversations, tokenizer, rules, workers=workers)
    for conversation, (outcome, remarks) in zip(conversations, outcomes, strict=True):
        if isinstance(outcome, SupervisionError):
            on_drop(conversation, outcome)
            continue
        if on_shorten and remarks.left_out:
            on_shorten(conversation, remarks.left_out)
        yield conversation, outcome


def encode_all(
    conversations: Sequence[Conversation], tokenizer: Any, rules: Rules | None = None, *, workers: int = 1
) -> Iterator[tuple[Outcome, Remarks]]:
    """Of each conversation, in order: its sequences or the error, and what there is to remark.

    Only the workers look at the conversations, so they may be read from a file when asked for.
    """
    chosen = rules or Rules()
    supervisor = Supervisor(tokenizer, chosen, _tokenise(tokenizer, conversations))

    def encode_chunk(rows: Sequence[Conversation]) -> _Chunk:
        outcomes = supervisor.encode([Row(row.messages, row.tools, chosen.supervise) for row in rows])
        return _Chunk.of(outcomes, supervisor.remarks)

    for chunk in map_chunks(encode_chunk, conversations, CONVERSATIONS_AT_ONCE, workers):
        for index, outcome in enumerate(chunk.outcomes()):
            yield outcome, chunk.remarks.get(index, NOTHING)


class _Chunk(NamedTuple):
    """The outcomes of some rows as a few flat arrays, which pass between processes quickly.

    ids, supervised: of all sequences, end to end. lengths: of each sequence. spans: of each sequence, their number;
    turns (spans, 3). sequences: of each row, their number; 0 where there is an error. remarks: see `Supervisor`.
    """

    ids: NDArray[np.int32]
    supervised: NDArray[np.bool_]
    lengths: list[int]
    spans: list[int]
    turns: list[Span]
    sequences: list[int]
    errors: dict[int, tuple[str, str]]
    remarks: dict[int, Remarks]

    @classmethod
    def of(cls, outcomes: Sequence[Outcome], remarks: dict[int, Remarks]) -> _Chunk:
        found = [() if isinstance(outcome, SupervisionError) else outcome for outcome in outcomes]
        flat = [sequence for sequences in found for sequence in sequences]
        return cls(
            ids=np.concatenate([sequence.ids for sequence in flat]) if flat else np.empty(0, np.int32),
            supervised=np.concatenate([sequence.supervised for sequence in flat]) if flat else np.empty(0, np.bool_),
            lengths=[len(sequence) for sequence in flat],
            spans=[len(sequence.turns) for sequence in flat],
            turns=[span for sequence in flat for span in sequence.turns],
            sequences=[len(sequences) for sequences in found],
            errors={
                index: (outcome.reason, str(outcome))
                for index, outcome in enumerate(outcomes)
                if isinstance(outcome, SupervisionError)
            },
            remarks=remarks,
        )

    def outcomes(self) -> Iterator[Outcome]:
        token = span = 0
        flat = zip(self.lengths, self.spans, strict=True)
        for row, count in enumerate(self.sequences):
            if row in self.errors:
                yield SupervisionError(*self.errors[row])
                continue
            sequences = []
            for length, spans in islice(flat, count):
                part = slice(token, token + length)
                turns = tuple(self.turns[span : span + spans])
                sequences.append(Encoded(self.ids[part], self.supervised[part], turns))
                token, span = token + length, span + spans
            yield tuple(sequences)


def _tokenise(tokenizer: Any, conversations: Sequence[Conversation]) -> Tokenise | None:
    """What tokenises the rows, checked with the contents of some of them; of few rows it is the tokenizer itself."""
    if len(conversations) < WORTH_A_FASTER_TOKENIZER:
        return None
    some = conversations[:: len(conversations) // ROWS_COMPARED]
    return bulk(tokenizer, [message.content for row in some for message in row.messages if _is_text(message.content)])


def _is_text(content: str) -> bool:
    """Whether it can be tokenised: half characters can't, and their rows are refused."""
    return not any("\ud800" <= character <= "\udfff" for character in content)
