"""Vectors of texts against a plain computation, one text at a time and without padding; and bad folders."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel, PreTrainedTokenizerFast

from tunesmith.base.errors import RecipeError, UserError
from tunesmith.base.random import python_stream
from tunesmith.data.ledger import Ledger
from tunesmith.model.encoder import TextEmbedding
from tunesmith.pipeline import run
from tunesmith.recipe import load_recipe

WORDS = "the a cat dog house runs sleeps big small red and or of to in far away today we they".split()
KEY = "data.dedup.embedding"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT of two layers over a vocabulary of words."""
    path = tmp_path_factory.mktemp("bert")
    vocabulary = {word: place for place, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained(path)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    config = BertConfig(vocab_size=len(vocabulary), max_position_embeddings=30, initializer_range=0.4, **sizes)
    BertModel(config).save_pretrained(path)
    return path


def texts() -> list[str]:
    draw = python_stream(0, "embedding")
    return ["", *(" ".join(draw.choices(WORDS, k=draw.randint(1, 40))) for _ in range(100))]


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_vectors_are_those_of_each_text_alone(folder: Path, tmp_path: Path, pooling: str, capsys) -> None:
    place = tmp_path / "model"
    shutil.copytree(folder, place)
    if pooling == "cls":
        (place / "1_Pooling").mkdir()
        said = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False, "word_embedding_dimension": 16}
        (place / "1_Pooling" / "config.json").write_text(json.dumps(said))
    found = TextEmbedding(str(place), KEY, device="cpu")(texts())
    model, tokenizer = AutoModel.from_pretrained(folder).double().eval(), AutoTokenizer.from_pretrained(folder)
    for text, vector in zip(texts(), found, strict=True):
        ids = tokenizer(text, return_tensors="pt", truncation=True, max_length=30)["input_ids"]
        with torch.no_grad():
            hidden = model(ids).last_hidden_state[0]
        wanted = hidden[0] if pooling == "cls" else hidden.mean(0)
        np.testing.assert_allclose(vector, wanted.numpy(), atol=1e-5)
    longer = sum(len(text.split()) > 28 for text in texts())
    assert longer and f"{longer} of 101 texts are cut to the model's 30 tokens" in capsys.readouterr().err


def test_bad_folders_are_told(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.dedup\.embedding is .*no config\.json"):
        TextEmbedding(str(tmp_path), KEY)
    shutil.copytree(folder, tmp_path / "model")
    (tmp_path / "model" / "1_Pooling").mkdir()
    (tmp_path / "model" / "1_Pooling" / "config.json").write_text('{"pooling_mode_max_tokens": true}')
    with pytest.raises(UserError, match="pooling_mode_max_tokens"):
        TextEmbedding(str(tmp_path / "model"), KEY)
    (tmp_path / "model" / "model.safetensors").unlink()
    with pytest.raises(UserError, match="can't be loaded"):
        TextEmbedding(str(tmp_path / "model"), KEY)


def test_a_recipe_names_the_model(folder: Path, tmp_path: Path, capsys) -> None:
    pairs = [("the cat sleeps far away today", "they"), ("today the cat sleeps far away", "they"), ("big house", "we")]
    lines = [json.dumps({"instruction": asked, "output": answer}) for asked, answer in pairs]
    (tmp_path / "a.jsonl").write_text("\n".join(lines) + "\n")
    shutil.copytree(folder, tmp_path / "model")
    vectors = TextEmbedding(str(folder), KEY)([asked for asked, _ in pairs])
    lengths = np.linalg.norm(vectors, axis=1)
    cosines = (vectors @ vectors.T) / np.outer(lengths, lengths)
    others = max(cosines[0, 2], cosines[1, 2])
    assert cosines[0, 1] > others + 0.01
    semantic = f"near: null, over: instruction, semantic: {(cosines[0, 1] + others) / 2:.4f}"
    text = "base: pocket\ndata: {sources: [{path: a.jsonl}], hold_out: {items: 0}, coverage: null, dedup: {%s}}\n"
    recipe = tmp_path / "r.yaml"

    def prepared(said: str, name: str = "run") -> str:
        recipe.write_text(text % said)
        assert run(load_recipe(str(recipe)), tmp_path / name, until="prepare") == 0
        return capsys.readouterr().err

    prepared(f"{semantic}, embedding: model")
    dropped = Ledger.load(tmp_path / "run" / "ledger").examples("semantic_duplicate", 9)
    assert [drop.row for drop in dropped] == ["a:2"] and f"similarity {cosines[0, 1]:.3f}" in dropped[0].detail
    assert "prepared before" in prepared(f"{semantic}, embedding: model")
    (tmp_path / "model" / "config.json").write_text((folder / "config.json").read_text() + "\n")
    assert "prepared before" not in prepared(f"{semantic}, embedding: model")
    with pytest.raises(RecipeError, match=r"embedding(.|\n)*without `semantic`"):
        prepared("embedding: model")
    with pytest.raises(UserError, match=r"no config\.json"):
        prepared(f"{semantic}, embedding: none", "other")
