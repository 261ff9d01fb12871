"""Which held-out rows are measured, and in what portions."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tunesmith.base.conversation import Conversation, Message
from tunesmith.pipeline import measuring, training
from tunesmith.recipe import load_recipe

ROWS = [
    Conversation(f"s:{number}", (Message("user", "q"), Message("assistant", "a")), cluster=f"cluster {number // 100}")
    for number in range(400)
]
PREPARED: Any = SimpleNamespace(
    held_out={"new_items": ROWS, "new_clusters": []}, validation=[], store=None, texts=["A text."]
)


def test_what_is_watched_are_the_first_rows_of_those_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load_recipe("quickstart", ["seed=3"]).recipe
    watched: list[Conversation] = []
    monkeypatch.setattr(training, "supervised_rows", lambda rows, _: watched.extend(rows) or [])
    assert list(training._evaluators(PREPARED, recipe)) == ["new_items"]
    assert watched == measuring.scored(PREPARED, 200, seed=3)["new_items"][: training.WATCHED]
    assert len({row.cluster for row in watched}) == 4


@pytest.mark.parametrize(("tokens", "cached"), [(512, 8192), (1 << 15, 65_536)])
def test_less_is_measured_at_a_time_where_less_is_trained(
    monkeypatch: pytest.MonkeyPatch, tokens: int, cached: int
) -> None:
    recipe = load_recipe("quickstart", [f"train.tokens_per_batch={tokens}", "train.tokens_per_step=65536"]).recipe
    asked: dict[str, int] = {}
    for name in ("answer", "response_losses", "text_bits"):
        monkeypatch.setattr(measuring, name, lambda *_, name=name, **given: asked.update({name: given["batch_tokens"]}))
    monkeypatch.setattr(measuring, "supervised_rows", lambda rows, _: rows)
    run: Any = SimpleNamespace(recipe=recipe)
    measuring._measure(None, None, PREPARED, recipe.evaluate, run, {"tuned": "chat"})
    assert asked == {"answer": cached, "response_losses": tokens, "text_bits": tokens}


def test_a_moved_limit_needs_no_new_measurement(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    keys: set[str] = set()
    monkeypatch.setattr(measuring.Measured, "read", lambda _: None)
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / "base.json").touch()
    for override in ("max_rise=0.1", "max_rise=0.2", "documents=7"):
        recipe = load_recipe("quickstart", [f"evaluate.forgetting.{override}"]).recipe
        run: Any = SimpleNamespace(
            recipe=recipe, path=tmp_path, facts={"keys": {"prepare": ""}}, is_done=lambda _, key: keys.add(key) or True
        )
        measuring.measured(run, PREPARED, "base", "", None)
    assert len(keys) == 2
