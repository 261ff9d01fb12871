"""Models and tokenizers from the pocket, a directory or the Hub."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer, GenerationConfig
from transformers.utils import logging

import tunesmith.pocket
from tunesmith.base.errors import UserError
from tunesmith.base.progress import say
from tunesmith.model import seq2seq
from tunesmith.model.adapters import load_adapter
from tunesmith.model.attention import NAME
from tunesmith.model.losses import computes_exactly, head_of
from tunesmith.model.quantized import dequantized, nf4, saved_type, stay_as_quantized
from tunesmith.model.quantized import parameter_counts as parameter_counts

POCKET = "pocket"
ADAPTER, GENERATION = "adapter_config.json", "generation_config.json"


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model with its tokenizer. path: the directory they came from, or the Hub id."""

    model: Any
    tokenizer: Any
    path: Path | str


def load_tokenizer(name: str, *, trust_remote_code: bool = False) -> Any:
    """The tokenizer of a base model; raises UserError if there is none."""
    path = base_path(name)
    try:
        return AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        raise _unusable(name, "has no tokenizer that Transformers can load", error) from error


def load_base(
    name: str,
    *,
    dtype: str = "float32",
    device: str = "auto",
    trust_remote_code: bool = False,
    quantized: bool = False,
) -> LoadedModel:
    """A base model: "pocket", a directory with a config.json, or a Hub id.

    dtype: of the weights, a torch name; "auto" keeps the one they were saved in. device: "auto" is CUDA if present.
    quantized: hold the weights of linear layers, but the output head, in four bits (see `model.quantized`); `dtype` is
        then that of the other weights, and of the computation.
    Raises UserError, with the remedy, if there is no such model or its loss can't be computed exactly.
    """
    path = base_path(name)
    tokenizer = load_tokenizer(name, trust_remote_code=trust_remote_code)
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
        load = _load_encoder_decoder if getattr(config, "is_encoder_decoder", False) else _load
        given: dict[str, Any] = {"dtype": _type(dtype), "trust_remote_code": trust_remote_code}
        if quantized and getattr(config, "quantization_config", None) is None:  # else it was saved quantised
            compute = getattr(config, "dtype", None) if dtype == "auto" else given["dtype"]
            given |= {"quantization_config": nf4(compute or torch.float32), "device_map": {"": _device(device)}}
        model = load(path, given)
    except (OSError, ValueError) as error:
        raise _unusable(name, "can't be loaded", error) from error
    return LoadedModel(model.to(_device(device)).eval(), tokenizer, path)


def is_encoder_decoder(name: str, *, trust_remote_code: bool = False) -> bool:
    """Whether a base model has an encoder that reads the prompt; raises UserError if there is no such model."""
    try:
        config = AutoConfig.from_pretrained(base_path(name), trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        raise _unusable(name, "can't be loaded", error) from error
    return bool(getattr(config, "is_encoder_decoder", False))


def load_trained(
    directory: Path,
    *,
    base: str | None = None,
    dtype: str = "float32",
    device: str = "auto",
    trust_remote_code: bool = False,
    whole: bool = False,
) -> LoadedModel:
    """A model that Tunesmith saved: all its weights, or an adapter, which is put on the base it was trained on.

    base: where that base is now; by default where the adapter says it was.
    A base that was quantised for training is again, and computes in the type it did then, whatever `dtype` says.
    whole: write its quantised weights out in fp32, so that the adapter can be merged into them.
    """
    if not (directory / ADAPTER).is_file():
        return load_base(str(directory), dtype=dtype, device=device, trust_remote_code=trust_remote_code)
    base = base or json.loads((directory / ADAPTER).read_text(encoding="utf-8"))["base_model_name_or_path"]
    compute = saved_type(directory)
    loaded = load_base(
        base,
        dtype=compute or dtype,
        device=device,
        trust_remote_code=trust_remote_code,
        quantized=compute is not None,
    )
    if (directory / GENERATION).is_file():
        loaded.model.generation_config = GenerationConfig.from_pretrained(directory)
    model = load_adapter(dequantized(loaded.model) if whole else loaded.model, directory)
    tokenizer = load_tokenizer(str(directory), trust_remote_code=trust_remote_code)
    return LoadedModel(model.eval(), tokenizer, directory)


def base_path(name: str) -> Path | str:
    """Where a base model is: a directory, or a Hub id as it stands. Raises UserError if there is no model."""
    if name == POCKET:
        return Path(tunesmith.pocket.__file__).parent / "weights"
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file() and not (path / ADAPTER).is_file():
            raise UserError(f"base {name}: there is no config.json in {path.resolve()}, so it is not a saved model")
        return path
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise UserError(
            f'base {name}: there is no such directory. Give "{POCKET}", a directory that holds a saved model, '
            f"or a Hub id like HuggingFaceTB/SmolLM2-135M"
        )
    return name


def _load(path: Path | str, given: Mapping[str, Any]) -> Any:
    """The model with attention inside documents if that is proven exact for it, else with its own.

    given: what else Transformers is told.
    """

    def load(implementation: str) -> Any:
        return stay_as_quantized(
            AutoModelForCausalLM.from_pretrained(path, attn_implementation=implementation, **given)
        )

    logging.disable_progress_bar()
    try:
        model = load(NAME)
        if computes_exactly(model):
            return model
    except NotImplementedError:
        pass
    say(
        f"{path}: documents can't share a packed row in this architecture; those of similar length are computed "
        f"together, padded at their ends, which is slower"
    )
    model = load("eager")
    if not computes_exactly(model):
        raise UserError(
            f"base {path}: {model.config.model_type} models compute their logits in a way Tunesmith does not know, so "
            f"their loss would be wrong; choose a base of another architecture"
        )
    return model


def _load_encoder_decoder(path: Path | str, given: Mapping[str, Any]) -> Any:
    logging.disable_progress_bar()
    model = stay_as_quantized(AutoModelForSeq2SeqLM.from_pretrained(path, **given)).eval()
    # What some bases force answers to begin or end with is not what they are tuned to answer.
    model.generation_config.forced_bos_token_id = model.generation_config.forced_eos_token_id = None
    model.generation_config.decoder_start_token_id = seq2seq.start_token(model)  # saved, whatever serves the model
    if not seq2seq.computes_exactly(model, head_of(model)):
        raise UserError(
            f"base {path}: {model.config.model_type} models compute their logits in a way Tunesmith does not know, so "
            f"their loss would be wrong; choose a base of another architecture"
        )
    return model


def _type(name: str) -> torch.dtype | str:
    found = getattr(torch, name, None)
    if name != "auto" and not isinstance(found, torch.dtype):
        raise UserError(f"dtype {name} is not one of PyTorch's; give auto, float32 or bfloat16")
    return name if found is None else found


def _device(name: str) -> torch.device:
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)


def _unusable(name: str, what: str, error: Exception) -> UserError:
    first = str(error).strip().partition("\n")[0]
    return UserError(
        f"base {name} {what}: {first} Check the name (a Hub id is owner/model), the connection, and that a directory "
        f"holds config.json, the weights and the tokenizer."
    )
