"""`tunesmith inspect`: the exact tokens of rows, as trained in a run or as a recipe would train them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tunesmith.base.conversation import Conversation
from tunesmith.base.errors import SupervisionError, UserError
from tunesmith.base.progress import say
from tunesmith.data.ledger import Ledger
from tunesmith.model.load import load_tokenizer
from tunesmith.pipeline.preparing import read, tokenizer_of
from tunesmith.pipeline.supervising import rules_of
from tunesmith.recipe import LoadedRecipe
from tunesmith.recipe.models import Recipe
from tunesmith.tokens.encoded import Encoded
from tunesmith.tokens.store import TokenStore
from tunesmith.tokens.supervise import encode_conversation
from tunesmith.tokens.view import VISIBLE, as_json, as_text, served

SHOWN = 3  # rows, when none is asked for
Shown = tuple[str, Encoded, Conversation | None]  # a row's id, a sequence of it, the row if it is at hand
WIDE = 110  # columns from which what is trained and what is served stand side by side
TAIL = 400  # characters of a served prompt's end that are shown
LEGEND = "Supervised tokens are on green; special tokens are marked; ⏎ is a line break."


def inspect(loaded: LoadedRecipe, run: Path | None, *, row: str | None, ids: bool, as_json: bool) -> int:
    """Print the tokens of one row, or of the first few: those of the token store of `run` if it was prepared, else, or
    without a run, as the recipe and its files say now. Beside them the prompts that a server feeds the model."""
    tokenizer = tokenizer_of(loaded.recipe, load_tokenizer)
    if run and (run / "tokens" / "store").is_dir():
        found = _stored(run, loaded, row)
    else:
        found = _encoded(loaded.recipe, tokenizer, _rows(loaded, row))
    if as_json:
        shown = [{"row": name} | _json(sequence, tokenizer, one) for name, sequence, one in found]
        json.dump(shown, sys.stdout, ensure_ascii=False, indent=2)
        print()
        return 0
    console = Console(highlight=False)
    say(LEGEND)
    for name, sequence, one in found:
        count = f"{len(sequence)} tokens, {int(sequence.supervised.sum())} supervised"
        console.rule(Text(f"{name}: {count}"), align="left")
        trained = as_text(sequence, tokenizer, with_ids=ids)
        prompts = _served(sequence, tokenizer, one) if one else Text()
        if console.width < WIDE:
            console.print(trained, soft_wrap=True)
            console.print(prompts, soft_wrap=True)
        else:
            side_by_side = Table(box=None, expand=True, padding=(0, 1), header_style="bold")
            side_by_side.add_column("as trained", ratio=1)
            side_by_side.add_column("as served", ratio=1)
            side_by_side.add_row(trained, prompts)
            console.print(side_by_side)
    return 0


_json = as_json  # the option of `inspect` has the same name


def _served(sequence: Encoded, tokenizer: Any, row: Conversation) -> Text:
    """What a server feeds the model before each supervised turn: the last part of it, and whether it is the same."""
    shown = Text()
    for message, prompt in served(sequence, tokenizer, row).items():
        said = (
            "the same as trained"
            if prompt["same"]
            else "NOT the same as trained (oldest turns left out, or the source changed)"
        )
        shown.append(f"before message {message} a server feeds {len(prompt['ids'])} tokens, {said}:\n", "italic")
        text = prompt["text"]
        shown.append(f"{'…' if len(text) > TAIL else ''}{text[-TAIL:]}\n".translate(VISIBLE), "dim")
    return shown


def _rows(loaded: LoadedRecipe, row: str | None) -> list[Conversation]:
    """The rows to show, as the recipe's sources give them."""
    ledger = Ledger(Path())  # never saved
    sources = [source for source in loaded.recipe.data.sources if not row or row.startswith(f"{source.name}:")]
    rows: list[Conversation] = []
    for source in sources:
        read(source, ledger, lambda one: rows.append(one) if one.id == row or (not row and len(rows) < SHOWN) else None)
    if not rows and row and (story := ledger.story(row)):
        raise UserError(f"row {row} has no tokens: {'; '.join(story)}.")
    if not rows:
        known = ", ".join(source.name for source in loaded.recipe.data.sources)
        raise UserError(f"there is no row {row}. A row's id is SOURCE:LINE; the recipe's sources are: {known}.")
    return rows


def _stored(run: Path, loaded: LoadedRecipe, row: str | None) -> list[Shown]:
    """Rows of a run as it was trained; the sources, which may be gone by now, only add the prompts as served."""
    store = TokenStore.open(run / "tokens" / "store")
    names = store.row_ids
    places = range(min(SHOWN, len(names))) if row is None else [i for i, name in enumerate(names) if name == row]
    if not places:
        story = Ledger.load(run / "ledger").story(row or "")
        raise UserError(f"row {row} has no tokens: {'; '.join(story) or 'the run has no such row'}.")
    rows: dict[str, Conversation] = {}
    for name in {names[place] for place in places}:
        try:
            rows[name] = _rows(loaded, name)[0]
        except UserError:
            say(f"{name}: its source does not give it now, so the prompt as served is not shown.")
    return [(names[place], store[place], rows.get(names[place])) for place in places]


def _encoded(recipe: Recipe, tokenizer: Any, rows: list[Conversation]) -> list[Shown]:
    found: list[Shown] = []
    for row in rows:
        try:
            sequences = encode_conversation(row, tokenizer, rules_of(recipe))
        except SupervisionError as error:
            say(f"{row.id} would be left out ({error.reason}): {error}")
        else:
            found += [(row.id, sequence, row) for sequence in sequences]
    return found
