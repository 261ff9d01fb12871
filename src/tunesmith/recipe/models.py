"""The recipe as frozen models. A field's docstring is its description in `tunesmith schema`.

Values are strict (no "yes" for a number, no 1 for a name); unknown keys are refused. Defaults are resolved when a
recipe is read, so the copy kept with a run shows every value that was used.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunesmith.recipe.data import Data
from tunesmith.recipe.evaluation import Evaluate
from tunesmith.recipe.section import Section, Text
from tunesmith.recipe.training import Train


class Recipe(Section):
    """A whole run: from raw instruction data and a base model to an assistant and the proof that it is better."""

    base: Text = "pocket"
    """The base model: `pocket` (embedded, works offline), a model id of the Hub, or a local folder."""
    chat_template: Text | None = None
    """By default the base model's own; otherwise the name of a shipped one, or a Jinja file."""
    template_args: Mapping[Text, Any] = {}
    """Arguments of the chat template that serving will use, e.g. `{enable_thinking: false}`; saved in the template."""
    trust_remote_code: bool = False
    """Run the Python code that some models of the Hub carry. Only for authors you trust."""
    seed: int = 0
    """Every random choice follows from it."""
    data: Data
    """The rows to train on, and those to measure with."""
    train: Train = Train()
    """How the model is trained; by default every weight, for two epochs."""
    evaluate: Evaluate = Evaluate()
    """How base and tuned model are compared; by default on up to 200 answers per level."""
