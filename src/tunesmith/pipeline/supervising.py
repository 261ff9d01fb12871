"""From rows to the token store: what could be supervised exactly, what could not, and what there is to tell of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import pyarrow.compute as pc

from tunesmith.base.conversation import Conversation
from tunesmith.base.errors import SupervisionError
from tunesmith.base.files import write_json
from tunesmith.base.parallel import cores
from tunesmith.base.progress import say, track
from tunesmith.data.engine import StoredRows
from tunesmith.data.ledger import Drop, Ledger
from tunesmith.data.rows import RowLabel, Rows
from tunesmith.model.load import is_encoder_decoder
from tunesmith.pipeline.folder import RunFolder
from tunesmith.pipeline.mixing import REPLAY
from tunesmith.recipe.models import Recipe
from tunesmith.tokens.many import encode_all
from tunesmith.tokens.store import Entry, TokenStore
from tunesmith.tokens.supervise import Rules
from tunesmith.tokens.view import as_json

SAMPLES, SAMPLE_TOKENS = 8, 300  # rows whose tokens the report shows, and the longest of them
RULES = {"supervise", "max_length", "too_long", "special_tokens"}
OMITTED = {"reasoning": "reasoning", "content": "text beside tool calls"}


def supervise(
    run: RunFolder,
    tokenizer: Any,
    rows: Rows | StoredRows,
    labels: list[RowLabel],
    replay: list[Conversation],
    ledger: Ledger,
) -> set[str]:
    """Encode the rows of `labels`, held-out ones too, and the replayed texts into the token store.

    Returns the ids of the rows that can't be: they are dropped.
    """
    seen = _Seen(run.recipe, tokenizer)
    asked = seen.sequences(rows.picked(label.place for label in labels), labels)
    everything = chain(asked, seen.sequences(replay, replay))
    store = TokenStore.write(run.path / "tokens" / "store", everything, {}, vocabulary=len(tokenizer))
    write_json(run.path / "tokens" / "samples.json", list(seen.samples.values()))
    kept = pc.count_distinct(store.rows["row"]).as_py()
    note = "; ".join([f"{len(store):,} sequences", *seen.notes()])
    ledger.step("supervise", len(labels) + len(replay), kept, seen.drops, seen.shortened, note)
    reasons = Counter(drop.reason for drop in seen.drops).items()
    left = f" Left out: {', '.join(f'{reason} {count:,}' for reason, count in reasons)}." if reasons else ""
    left += f" Shortened by their oldest turns: {seen.shortened:,} rows." if seen.shortened else ""
    say(f"Tokens: {store.tokens:,} in {len(store):,} sequences.{left}")
    for note in seen.notes():
        say(f"Warning: {note}.")
    return {drop.row for drop in seen.drops}


def rules_of(recipe: Recipe) -> Rules:
    """What of the recipe decides which tokens are supervised and which rows are refused."""
    encoder_decoder = is_encoder_decoder(recipe.base, trust_remote_code=recipe.trust_remote_code)
    return Rules(**recipe.train.model_dump(include=RULES), encoder_decoder=encoder_decoder)


@dataclass
class _Seen:
    """What is met while rows are encoded. shortened: rows that lost oldest turns. special: rows kept
    that hold the text of a special token where it is only seen. omitted: rows of which the chat
    template does not show this. samples: by group, a row to be looked at."""

    recipe: Recipe
    tokenizer: Any
    drops: list[Drop] = field(default_factory=list)
    shortened: int = 0
    special: int = 0
    omitted: Counter[str] = field(default_factory=Counter)
    samples: dict[str, dict[str, Any]] = field(default_factory=dict)

    def sequences(self, texts: Sequence[Conversation], known: Sequence[RowLabel | Conversation]) -> Iterator[Entry]:
        """The sequences of `texts`; of each, `known` has id, source and cluster without its being read again."""
        by_source = self.recipe.data.mix.by == "source"
        outcomes = encode_all(texts, self.tokenizer, rules_of(self.recipe), workers=cores())
        pairs = zip(known, outcomes, strict=True)
        for index, (row, (outcome, remarks)) in enumerate(track(pairs, "Tokenising", len(known))):
            if isinstance(outcome, SupervisionError):
                self.drops.append(Drop(row.id, "supervise", outcome.reason, str(outcome)))
                continue
            self.shortened += remarks.left_out > 0
            self.omitted.update(remarks.omits)
            self.special += remarks.special
            group = row.source if by_source or row.source == REPLAY else row.cluster
            wanted = len(self.samples) < SAMPLES and group not in self.samples and not row.is_text
            if wanted and len(outcome[0]) <= SAMPLE_TOKENS:
                self.samples[group] = {"row": row.id} | as_json(outcome[0], self.tokenizer, texts[index])
            for part in outcome:
                yield part, row.id, group

    def notes(self) -> list[str]:
        kept = [f"{self.special:,} rows hold special tokens in text that is only seen, and were kept"]
        return kept[: self.special] + [
            f"the chat template does not show the {OMITTED[name]} of {count:,} rows, so it is not trained"
            for name, count in self.omitted.items()
        ]
