import pytest

from tunesmith.pipeline import run
from tunesmith.recipe import load_recipe

SMALL = """
base: pocket
data:
  sources:
    - {pocket: 240, name: small}
  replay: {pocket: 40, share: 0.1}
  hold_out: {items: 0.1, phrasings: 0.1, clusters: [paraphrase]}
train: {learning_rate: 1.0e-3, epochs: 1, max_length: 256, tokens_per_batch: 1024, tokens_per_step: 2048}
evaluate: {items: 4, losses: 20, max_new_tokens: 8, forgetting: {pocket: 10}}
"""


def _loaded(folder, *overrides):
    path = folder / "small.yaml"
    path.write_text(SMALL)
    return load_recipe(str(path), overrides)


@pytest.fixture
def recipe(tmp_path):
    """A function that loads a small recipe with overrides."""
    return lambda *overrides: _loaded(tmp_path, *overrides)


@pytest.fixture
def recipe_file(tmp_path):
    """The path of a small recipe."""
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return str(path)


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The folder of a finished run; copy it before changing it."""
    folder = tmp_path_factory.mktemp("finished")
    assert run(_loaded(folder), folder / "run") == 0
    return folder / "run"
