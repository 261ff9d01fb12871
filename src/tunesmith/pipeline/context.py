"""Whether the longest rows fit in the base model's context."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig

from tunesmith.base.errors import UserError
from tunesmith.base.progress import say
from tunesmith.model.blank import empty_base
from tunesmith.model.load import base_path
from tunesmith.pipeline.advising import Advice
from tunesmith.recipe.models import Recipe
from tunesmith.recipe.training import METHODS_OF


def context_of(recipe: Recipe) -> int | None:
    """Positions that the base was made for, as its configuration says; None if it has no such limit."""
    config = AutoConfig.from_pretrained(base_path(recipe.base), trust_remote_code=recipe.trust_remote_code)
    config = config.get_text_config()
    limit = getattr(config, "max_position_embeddings", None)
    return None if getattr(config, "alibi", False) or not isinstance(limit, int) or limit <= 0 else limit


def on_context(recipe: Recipe, longest: int | None) -> Iterator[Advice]:
    """What speaks against `max_length`, with the virtual tokens that stand before each row.

    longest: tokens of the longest prepared row; None if that is not known. Raises UserError if it has positions for
    which the base has no embedding.
    """
    train, context = recipe.train, context_of(recipe)
    virtual = train.prompt.tokens if train.method in METHODS_OF["prompt"] else 0
    if context is None or train.max_length + virtual <= context:
        return
    fitting = context - virtual
    more = f" and {virtual} virtual tokens before it are {train.max_length + virtual:,} positions" if virtual else ""
    what = f"max_length {train.max_length:,}{more}; {recipe.base} was made for {context:,} (max_position_embeddings)."
    if longest is not None and longest + virtual <= context:
        yield Advice(f"{what} No row is that long now: the longest has {longest:,} tokens.", _lower(fitting))
        return
    if longest is not None and _counts_positions(recipe, context):
        raise UserError(
            f"train.{what} A row has {longest:,} tokens, and this base has no embeddings for positions beyond. "
            f"{_lower(fitting)} Longer rows are then dropped and counted, or shortened with too_long: oldest_turns."
        )
    rows = "Longer rows" if longest is None else f"The longest row has {longest:,} tokens: what is beyond"
    yield Advice(
        f"{what} {rows} would be trained at positions that it never learned, where models with rotary positions do "
        f"badly.",
        f"{_lower(fitting)[:-1]}, or extend the positions in the base's config.json (rope_parameters, as yarn).",
    )


def check_context(recipe: Recipe, lengths: Any) -> None:
    """Say what speaks against the lengths (tokens, (rows,)) of prepared rows. Raises UserError as `on_context`."""
    for each in on_context(recipe, int(lengths.max(initial=0))):
        say(f"Warning: {each}")


def _lower(fitting: int) -> str:
    if fitting < 16:
        return "Take fewer virtual tokens (train.prompt.tokens)."
    return f"Set train.max_length: {fitting}."


def _counts_positions(recipe: Recipe, context: int) -> bool:
    """Whether positions have embeddings of their own (GPT-2, OPT), of which there are no more; some have two besides,
    for fill."""
    with torch.device("meta"):
        model = empty_base(recipe.base, trust_remote_code=recipe.trust_remote_code)
    tables = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    words = model.get_input_embeddings()
    return any(table is not words and 0 <= table.num_embeddings - context <= 2 for table in tables)
