"""Rebuild the pocket base model from nothing: tokenizer, corpus, pretraining, card. `make pocket` runs this.

Takes about an hour on two cores. Interrupted, it goes on where it stopped when run again with the same arguments.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.models.llama.modeling_llama import LlamaAttention

from tunesmith.base.progress import say, track
from tunesmith.base.random import stream
from tunesmith.evaluate.language import text_bits
from tunesmith.model.attention import NAME as ATTENTION
from tunesmith.pocket import corpus, world
from tunesmith.tokens.batches import plan_epochs
from tunesmith.tokens.encoded import Encoded
from tunesmith.tokens.store import TokenStore
from tunesmith.train.loop import train
from tunesmith.train.settings import TrainSettings

SEED = 20_260_101  # of the training corpus; replay and held-out text use other seeds
HELD_OUT_SEED = 20_260_102
TOKENIZER_DOCUMENTS = 40_000
VOCABULARY = 2_560
COPYING = 0.8
END, START_OF_TURN, END_OF_TURN, PADDING = "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"
CHAT_TEMPLATE = Path(__file__).with_name("pocket_chat_template.jinja")
CARD = Path(__file__).with_name("pocket_card.md")


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer: any Unicode text has an encoding, and each digit is a token of its own."""
    tokenizer = Tokenizer(models.BPE())
    digits = pre_tokenizers.Split(Regex(r"\p{N}"), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[END, START_OF_TURN, END_OF_TURN, PADDING],
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus.documents(SEED, TOKENIZER_DOCUMENTS), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END,
        eos_token=END,
        pad_token=PADDING,
        chat_template=CHAT_TEMPLATE.read_text(encoding="utf-8"),
        model_max_length=1024,
        clean_up_tokenization_spaces=False,
    )


def build_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    torch.manual_seed(SEED)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=6,
        num_attention_heads=6,
        num_key_value_heads=6,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        initializer_range=0.05,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    config._attn_implementation = ATTENTION
    model = LlamaForCausalLM(config)
    for layer in model.model.layers:
        _ready_to_copy(layer.self_attn)
    return model


def _ready_to_copy(attention: LlamaAttention) -> None:
    """Start a layer's attention at looking for like tokens and passing them on as they are.

    Queries equal keys, and what values and output projection do together is a scaled identity: the mimetic
    initialisation of Trockman and Kolter (arXiv:2305.09828). From the usual random start a model of this size sees
    millions of tokens before it can repeat a name from the text; from here it takes less than one million.
    """
    width = attention.q_proj.weight.shape[0]
    with torch.no_grad():
        turn = torch.linalg.qr(torch.randn(width, width))[0]
        attention.q_proj.weight.copy_(turn)
        attention.k_proj.weight.copy_(turn)
        turn = torch.linalg.qr(torch.randn(width, width))[0]
        attention.v_proj.weight.copy_(COPYING**0.5 * turn)
        attention.o_proj.weight.copy_(COPYING**0.5 * turn.T)


def distinct(texts: Iterable[str]) -> Iterator[str]:
    """The texts, exact repeats left out."""
    seen: set[str] = set()
    for text in texts:
        if text not in seen:
            seen.add(text)
            yield text


def tokenised(folder: Path, texts: Iterable[str], count: int, tokenizer: PreTrainedTokenizerFast) -> TokenStore:
    """Distinct documents, each between two end tokens, all supervised but the first token."""
    if folder.is_dir():
        return TokenStore.open(folder)
    end = tokenizer.eos_token_id

    def sequences() -> Iterator[tuple[Encoded, str, str]]:
        chosen = distinct(track(texts, folder.parent.name, count))
        number = 0
        while block := list(islice(chosen, 5000)):
            for encoding in tokenizer.backend_tokenizer.encode_batch(block):
                ids = [end, *encoding.ids, end]
                number += 1
                yield Encoded.from_spans(ids, ((0, 1, len(ids)),)), str(number), folder.parent.name

    return TokenStore.write(folder, sequences(), {}, vocabulary=len(tokenizer))


def set_unused_embeddings(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    """Tokens that the corpus never shows start from the mean embedding plus noise, as for any newly added token.

    Left as they are, pretraining would have pushed all of them to one and the same unlikely direction.
    """
    weight = model.get_input_embeddings().weight
    mean, spread = weight.mean(0), weight.std(0)
    noise = stream(SEED, "unused")
    for token in (START_OF_TURN, END_OF_TURN, PADDING):
        draw = torch.from_numpy(noise.standard_normal(weight.shape[1]).astype(np.float32))
        weight.data[tokenizer.convert_tokens_to_ids(token)] = mean + 0.5 * spread * draw


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path, facts: dict[str, Any]) -> None:
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "README.md").write_text(CARD.read_text(encoding="utf-8").format(**facts), encoding="utf-8")
    size = (folder / "model.safetensors").stat().st_size
    say(f"{folder}: {facts['parameters']:,} parameters, {size / 1e6:.1f} MB\n{json.dumps(facts, indent=2)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("src/tunesmith/pocket/weights"))
    parser.add_argument("--work", type=Path, default=Path("runs/pocket"), help="corpus and checkpoints go here")
    parser.add_argument("--documents", type=int, default=257_000)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    args = parser.parse_args()

    tokenizer = build_tokenizer()
    model = build_model(tokenizer)
    store = tokenised(args.work / "tokens", corpus.documents(SEED, args.documents), args.documents, tokenizer)
    settings = TrainSettings(
        learning_rate=args.learning_rate,
        tokens_per_batch=4096,
        tokens_per_step=4096,
        warmup=0.01,
        schedule="cosine",
        floor=0.02,
        weight_decay=0.05,
        betas=(0.9, 0.95),
        precision="bf16",
        compile=True,
        checkpoint_every=500,
        seed=SEED,
    )
    plan = plan_epochs(
        lambda epoch: stream(SEED, "order", epoch).permutation(len(store)),
        store.lengths,
        tokens_per_batch=settings.tokens_per_batch,
        batches_per_step=settings.batches_per_step,
        epochs=1,
        seed=SEED,
    )
    say(f"{len(store):,} documents, {plan.tokens:,} tokens, {plan.steps:,} steps")
    result = train(model, store, plan, settings, args.work)
    set_unused_embeddings(model, tokenizer)
    held_out = text_bits(model, tokenizer, corpus.documents(HELD_OUT_SEED, 2_000), max_length=1024)
    facts = {
        "seed": SEED,
        "residents": len(world.RESIDENTS),
        "towns": len(world.TOWNS),
        "animals": len(world.ANIMALS),
        "things": len(world.THINGS),
        "learning_rate": args.learning_rate,
        "parameters": sum(p.numel() for p in model.parameters()),
        "vocabulary": len(tokenizer),
        "documents": len(store),
        "tokens": plan.tokens,
        "steps": plan.steps,
        "minutes": round(result.seconds / 60),
        "hardware": f"{os.cpu_count()} cores ({platform.machine()}, bf16, torch.compile)",
        "bits_per_byte": round(held_out.per_byte, 3),
    }
    save(model, tokenizer, args.output, facts)


if __name__ == "__main__":
    main()
