"""`tunesmith inspect`: the exact tokens of rows, as trained in a run or as a recipe would train them."""

from __future__ import annotations

import json
import sys
from itertools import islice
from pathlib import Path

from rich.console import Console
from rich.text import Text

from tunesmith.base.conversation import Conversation
from tunesmith.base.errors import SupervisionError, UserError
from tunesmith.base.progress import say
from tunesmith.data.ledger import Ledger
from tunesmith.model.load import load_tokenizer
from tunesmith.pipeline.preparing import read, tokenizer_of
from tunesmith.recipe import LoadedRecipe
from tunesmith.recipe.models import Train
from tunesmith.tokens.encoded import Encoded
from tunesmith.tokens.store import TokenStore
from tunesmith.tokens.supervise import encode_conversation
from tunesmith.tokens.view import as_json, as_text

SHOWN = 3  # rows, when none is asked for
LEGEND = "Supervised tokens are on green; special tokens are marked; ⏎ is a line break."


def inspect(loaded: LoadedRecipe, run: Path | None, *, row: str | None, ids: bool, as_json: bool) -> int:
    """Print the tokens of one row, or of the first few: those of the token store of `run` if it was prepared, else, or
    without a run, as the recipe and its files say now."""
    tokenizer = tokenizer_of(loaded.recipe, load_tokenizer)
    prepared = run and (run / "tokens" / "store").is_dir()
    found = _stored(run, row) if run and prepared else _encoded(loaded, tokenizer, row)
    if as_json:
        shown = [{"row": name} | _json(sequence, tokenizer) for name, sequence in found]
        json.dump(shown, sys.stdout, ensure_ascii=False, indent=2)
        print()
        return 0
    console = Console(highlight=False)
    say(LEGEND)
    for name, sequence in found:
        count = f"{len(sequence)} tokens, {int(sequence.supervised.sum())} supervised"
        console.rule(Text(f"{name}: {count}"), align="left")
        console.print(as_text(sequence, tokenizer, with_ids=ids), soft_wrap=True)
    return 0


_json = as_json  # the option of `inspect` has the same name


def _stored(run: Path, row: str | None) -> list[tuple[str, Encoded]]:
    store = TokenStore.open(run / "tokens" / "store")
    if row is None:
        return [(name, store[index]) for index, name in enumerate(store.row_ids[:SHOWN])]
    found = [(name, store[index]) for index, name in enumerate(store.row_ids) if name == row]
    if not found:
        story = Ledger.load(run / "ledger").story(row)
        raise UserError(f"row {row} has no tokens: " + ("; ".join(story) if story else "the run has no such row") + ".")
    return found


def _encoded(loaded: LoadedRecipe, tokenizer: object, row: str | None) -> list[tuple[str, Encoded]]:
    """The rows as the recipe's sources give them, before any split."""
    ledger = Ledger(Path())  # never saved
    sources = [source for source in loaded.recipe.data.sources if not row or row.startswith(f"{source.name}:")]
    rows = [one for source in sources for one in read(source, ledger) if row in (None, one.id)]
    if row and (story := ledger.story(row)):
        raise UserError(f"row {row} has no tokens: {'; '.join(story)}.")
    if not rows:
        known = ", ".join(source.name for source in loaded.recipe.data.sources)
        raise UserError(f"there is no row {row}. A row's id is SOURCE:LINE; the recipe's sources are: {known}.")
    out: list[tuple[str, Encoded]] = []
    for one in islice(rows, SHOWN):
        out += [(one.id, sequence) for sequence in _sequences(one, tokenizer, loaded.recipe.train)]
    return out


def _sequences(row: Conversation, tokenizer: object, train: Train) -> tuple[Encoded, ...]:
    try:
        return encode_conversation(
            row, tokenizer, supervise=train.supervise, max_length=train.max_length, too_long=train.too_long
        )
    except SupervisionError as error:
        say(f"{row.id} would be left out ({error.reason}): {error}")
        return ()
