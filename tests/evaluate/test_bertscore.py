"""BERTScore against a plain computation in float64, one pair at a time and without padding."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel, PreTrainedTokenizerFast

from tunesmith.base.errors import UserError
from tunesmith.base.random import python_stream
from tunesmith.evaluate.bertscore import BertScore

WORDS = "the a cat dog house runs sleeps big small red and or of to in far away today we they".split()
Pair = tuple[str, str]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT of three layers over a vocabulary of words."""
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
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=40,
        initializer_range=0.4,
    )
    BertModel(config).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def pairs() -> list[Pair]:
    draw = python_stream(0, "bertscore")

    def text() -> str:
        return " ".join(draw.choice([*WORDS, "unknown"]) for _ in range(draw.randint(1, 30)))

    made = [(text(), text()) for _ in range(90)]
    return [*made, *[(one, one) for one, _ in made[:5]], ("the cat", ""), ("cat", "unknown")]


def oracle(folder: Path, pairs: list[Pair], layer: int, idf: bool) -> list[float]:
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModel.from_pretrained(folder).double().eval()
    texts = [tokenizer(expected)["input_ids"] for expected, _ in pairs]

    def weight(token: int) -> float:
        if token in (2, 3):
            return 0.0
        return math.log((len(texts) + 1) / (sum(token in text for text in texts) + 1)) if idf else 1.0

    def embedded(text: str) -> tuple[list[int], Any]:
        ids = tokenizer(text)["input_ids"]
        with torch.no_grad():
            hidden = model(torch.tensor([ids]), output_hidden_states=True).hidden_states[layer][0]
        return ids, hidden

    def matched(one: tuple[list[int], Any], other: tuple[list[int], Any]) -> float:
        total = sum(map(weight, one[0]))
        best = [max(float(torch.cosine_similarity(a, b, dim=0)) for b in other[1]) for a in one[1]]
        return sum(weight(token) * value for token, value in zip(one[0], best, strict=True)) / total if total else 0.0

    scores = []
    for expected, response in pairs:
        wanted, got = embedded(expected), embedded(response)
        precision, recall = matched(got, wanted), matched(wanted, got)
        scores.append(2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0)
    return scores


@pytest.mark.parametrize(("layer", "idf"), [(3, False), (1, False), (2, True)])
def test_equals_the_plain_computation(folder: Path, pairs: list[Pair], layer: int, idf: bool) -> None:
    found = BertScore(str(folder), layer=layer, idf=idf, device="cpu")([e for e, _ in pairs], [r for _, r in pairs])
    assert found == pytest.approx(oracle(folder, pairs, layer, idf), abs=1e-5)
    assert found[90:95] == pytest.approx([1] * 5, abs=1e-5) and found[95] == 0


def test_scores_do_not_depend_on_the_batch(folder: Path, pairs: list[Pair]) -> None:
    score = BertScore(str(folder), layer=2, device="cpu")
    together = score([e for e, _ in pairs], [r for _, r in pairs])
    assert together == pytest.approx([score([e], [r])[0] for e, r in pairs], abs=1e-5)
    assert score([], []) == []


def test_long_texts_are_cut_and_counted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    score = BertScore(str(folder), layer=2, device="cpu")
    long = " ".join(["cat"] * 100)
    assert score([long, "dog"], [" ".join(["cat"] * 38), "dog"]) == pytest.approx([1, 1], abs=1e-5)
    assert "1 of 2 texts are cut to the model's 40 tokens" in capsys.readouterr().err


def test_what_can_not_be_used_is_told(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no config\.json"):
        BertScore(str(tmp_path), layer=1)
    with pytest.raises(UserError, match="which layer"):
        BertScore(str(folder))
    with pytest.raises(UserError, match="layers 0 to 3"):
        BertScore(str(folder), layer=4)
    known = tmp_path / "distilroberta-base"
    known.symlink_to(folder)
    with pytest.raises(UserError, match="layer is 5"):
        BertScore(str(known))
