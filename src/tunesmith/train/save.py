"""The trained model as plain Transformers or PEFT load it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import GenerationConfig

from tunesmith import __version__
from tunesmith.base.conversation import Message
from tunesmith.base.errors import TunesmithError
from tunesmith.base.files import written_aside
from tunesmith.model.load import load_tokenizer
from tunesmith.model.parts import causal_model
from tunesmith.model.quantized import FILE as QUANTIZATION
from tunesmith.model.quantized import is_quantized, save_quantization
from tunesmith.tokens.templates import prompt_ids

SAMPLING = ("temperature", "top_k", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff")
PROBE = Message("user", "  Hello,\tworld! 12345 + 1 = ?\n\n  Straße, naïve, 你好 🙂  ")  # where tokenizers go wrong
CARD = """\
---
library_name: {library}
---
# {title}

Tuned by Tunesmith {version} from the base model `{base}`. {loading}

The chat template is saved with the tokenizer: prompts have to be made by it, as in training. An answer ends with
`{stop}`, which the generation config names.
"""
WHOLE = "Transformers loads this folder as it is."
ADAPTER = """\
What is here ({what}) stands beside the base: load the base{how}, then `PeftModel.from_pretrained(base, folder)` of PEFT
puts this on it.{more}"""
WHAT = {
    "LORA": "a LoRA adapter",
    "BOTTLENECK": "bottleneck adapters",
    "PROMPT_TUNING": "virtual tokens, by prompt tuning",
    "P_TUNING": "virtual tokens, by p-tuning",
    "PREFIX_TUNING": "a prefix of every layer, by prefix tuning",
}
QUANTIZED = f" with the `BitsAndBytesConfig` that `{QUANTIZATION}` spells out"
FIRST = " `import tunesmith.model.bottleneck` before, which makes the method known to PEFT."


def save_model(
    model: Any, tokenizer: Any, folder: Path, *, base: str, stop_ids: Sequence[int], trust_remote_code: bool = False
) -> Path:
    """Write weights (or the adapter alone), tokenizer with chat template, generation config and card to `folder`.

    base: the base model as recipes name it; an adapter records it. stop_ids: the tokens that end an answer; they become
    the generation config's end-of-sequence tokens, so that what serves the model stops where training taught it to.
    Raises TunesmithError when it can't be written, or would not be served as it was trained; a folder that was there
    before is then as it was.
    """
    inner = causal_model(model)
    inner.generation_config = _generation_config(inner.generation_config, tokenizer, stop_ids)
    with written_aside(folder) as aside:
        aside.mkdir()
        _write(model, tokenizer, aside, base, stop_ids)
        _check(aside, tokenizer, stop_ids, trust_remote_code)
    return folder


def _generation_config(config: GenerationConfig, tokenizer: Any, stop_ids: Sequence[int]) -> GenerationConfig:
    """The base's generation config with the trained stop tokens, such that Transformers agrees to save it."""
    if not config.do_sample:
        # A base may name a temperature and yet not sample. Transformers loads that, ignores the temperature, and
        # refuses to save it. Greedy is what its authors' config does, and how the model is measured, so that stays.
        for name in SAMPLING:
            setattr(config, name, None)
    stops = list(dict.fromkeys([*stop_ids, *_stops(config)]))
    tokens = {"eos_token_id": stops[0] if len(stops) == 1 else stops}
    if tokenizer.pad_token_id is not None:
        tokens["pad_token_id"] = tokenizer.pad_token_id
    for name, value in tokens.items():
        setattr(config, name, value)
    try:
        config.validate(strict=True)
    except ValueError:  # some other contradiction of the base's: a config of the tokens alone serves the model too
        starts = {name: getattr(config, name) for name in ("bos_token_id", "decoder_start_token_id")}
        return GenerationConfig(**starts, **tokens)
    return config


def _stops(config: GenerationConfig) -> list[int]:
    stops = config.eos_token_id
    return stops if isinstance(stops, list) else [] if stops is None else [stops]


def _write(model: Any, tokenizer: Any, folder: Path, base: str, stop_ids: Sequence[int]) -> None:
    whole = causal_model(model) is model
    if whole:
        model.save_pretrained(folder)
    else:
        model.peft_config["default"].base_model_name_or_path = base  # not a path into the package, for the pocket model
        model.save_pretrained(folder, save_embedding_layers=False)  # or it would ask the Hub for the vocabulary size
        causal_model(model).generation_config.save_pretrained(folder)
        save_quantization(model, folder)
    tokenizer.save_pretrained(folder)
    card = CARD.format(
        library="transformers" if whole else "peft",
        title="A tuned model" if whole else "An adapter",
        version=__version__,
        base=base,
        loading=WHOLE if whole else _loading(model),
        stop=tokenizer.convert_ids_to_tokens(stop_ids[0]),
    )
    (folder / "README.md").write_text(card, encoding="utf-8")  # over the placeholder that PEFT writes


def _loading(model: Any) -> str:
    """How an adapter is loaded."""
    kind = str(model.active_peft_config.peft_type.value)
    how = QUANTIZED if is_quantized(model) else ""
    return ADAPTER.format(what=WHAT[kind], how=how, more=FIRST if kind == "BOTTLENECK" else "")


def _check(folder: Path, tokenizer: Any, stop_ids: Sequence[int], trust_remote_code: bool) -> None:
    """Raises TunesmithError if whoever serves `folder` would prompt or stop otherwise than training did."""
    saved = load_tokenizer(str(folder), trust_remote_code=trust_remote_code)
    same = {
        "chat template": _templates(saved) == _templates(tokenizer),
        "added tokens": saved.get_added_vocab() == tokenizer.get_added_vocab(),
        "token ids of a prompt": prompt_ids([PROBE], saved) == prompt_ids([PROBE], tokenizer),
        "stop tokens": set(stop_ids) <= set(_stops(GenerationConfig.from_pretrained(folder))),
    }
    wrong = " and ".join(name for name, is_same in same.items() if not is_same)
    if wrong:
        raise TunesmithError(
            f"the model was not saved: read back from there, its {wrong} would differ from those of the training, and "
            f"so would its answers. Transformers does not save and load this tokenizer ({type(tokenizer).__name__}) "
            f"unchanged; try another version of Transformers, or another base."
        )


def _templates(tokenizer: Any) -> dict[str, list[str]]:
    """The lines of the chat template, or of several by name. Line ends are left out: files and Jinja change them."""
    text = tokenizer.chat_template
    named = text if isinstance(text, dict) else {"default": text}
    return {name: str(one).splitlines() for name, one in named.items()}
