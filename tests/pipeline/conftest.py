import pytest

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


@pytest.fixture
def recipe(tmp_path):
    """A function that loads a small recipe with overrides."""
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)

    def load(*overrides):
        return load_recipe(str(path), overrides)

    return load
