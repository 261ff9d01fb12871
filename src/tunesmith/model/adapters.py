"""A method of training is a way of preparing the model: which parameters train, and which are added."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from tunesmith.base.errors import UserError
from tunesmith.base.random import seed_of, stream
from tunesmith.model.losses import computes_exactly
from tunesmith.model.parts import causal_model, layers_of
from tunesmith.model.prompts import start_embeddings, start_prefix, virtual_tokens
from tunesmith.model.quantized import is_quantized

VIRTUAL = ("prompt", "p_tuning", "prefix")
Name = Literal["full", "lora", "qlora", "bottleneck", "prompt", "p_tuning", "prefix"]


@dataclass(frozen=True, slots=True)
class Method:
    """How a model is trained, as plain values; each method heeds its own.

    full: every weight but the embeddings (freeze_embeddings) and the first freeze_layers layers.
    lora: low-rank adapters (arXiv:2106.09685); qlora: the same on weights that were loaded quantised (2305.14314).
        targets: names of the linear layers that get one ("q_proj", "mlp.up_proj"); () is all but the output head.
        rslora: scaled by alpha / sqrt(rank) (2312.03732). dora: the length of weight rows apart (2402.09353).
    bottleneck: see `model.bottleneck`; size is the inner width. dropout is of the inputs of adapters.
    prompt: trained embeddings before every document (2104.08691); p_tuning: made by a small network, width wide
        (2103.10385); prefix: trained keys and values (P-tuning v2, 2110.07602), through a network width wide if given.
        tokens: how many. start: text that they start from, for prompt and prefix; else random words.
    """

    name: Name = "full"
    freeze_embeddings: bool = False
    freeze_layers: int = 0
    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    targets: Sequence[str] = ()
    rslora: bool = False
    dora: bool = False
    size: int = 64
    tokens: int = 20
    start: str | None = None
    width: int | None = None


def prepare_method(model: Any, method: Method | str, *, seed: int = 0, tokenizer: Any = None, **values: Any) -> Any:
    """The model, ready to be trained by a method; trained parameters are fp32, the others as they were loaded.

    method: or its name, with the fields of `Method` as keywords. tokenizer: for text that virtual tokens start from.
    Raises UserError for values that the model can't take, saying which it could, and for a method that its
    architecture can't take.
    """
    if not isinstance(method, Method):
        assert method in get_args(Name), f"unknown method {method}"
        method = Method(cast(Name, method), **values)
    if (method.name == "qlora") != is_quantized(model):
        raise UserError(
            f"method {method.name}: "
            + (
                "the base model's weights are quantised, and only `method: qlora` trains beside such. Use it, or a "
                "base with whole weights."
                if method.name != "qlora"
                else "the base model was loaded without quantisation; `load_base` has to be told `quantized=True`."
            )
        )
    training = model.training
    prepared = _unfrozen(model, method) if method.name == "full" else _with_adapter(model, method, seed, tokenizer)
    for parameter in prepared.parameters():
        if parameter.requires_grad and parameter.dtype != torch.float32:
            parameter.data = parameter.data.float()
    return prepared.train(training)  # PEFT's wrapper starts in training mode, whatever is in it


def load_adapter(model: Any, directory: Path) -> Any:
    """The model with the adapter saved in `directory`."""
    from peft import PeftModel

    import tunesmith.model.bottleneck  # noqa: F401  (makes the method known to PEFT)

    with _quiet():
        return PeftModel.from_pretrained(model, directory)


def merge(model: Any) -> Any:
    """The model with its adapters folded into the weights; a model without adapters as it is.

    Raises UserError for methods whose part can't become weights. The base must not be quantised (see `dequantized`).
    """
    if causal_model(model) is model:
        return model
    kind = str(model.active_peft_config.peft_type.value)
    if kind != "LORA":
        why = "virtual tokens are no weights" if virtual_tokens(model) else "its adapters are not linear"
        raise UserError(
            f"a model trained by method {_NAMES.get(kind, kind.lower())} can't be merged: {why}. Use its folder as it "
            f"is, by PEFT on its base model; only lora and qlora can be exported merged."
        )
    assert not is_quantized(model), "weights that are merged into must be whole"
    with _quiet():
        return model.merge_and_unload()


_NAMES = {
    "BOTTLENECK": "bottleneck",
    "PROMPT_TUNING": "prompt",
    "P_TUNING": "p_tuning",
    "PREFIX_TUNING": "prefix",
}


def _unfrozen(model: Any, method: Method) -> Any:
    model.requires_grad_(True)
    if method.freeze_embeddings:
        model.get_input_embeddings().requires_grad_(False)
    if method.freeze_layers:
        stacks = layers_of(model)
        if not stacks:
            raise UserError(f"freeze.layers: {model.config.model_type} models do not say what their layers are")
        fewest = min(map(len, stacks))
        if method.freeze_layers > fewest:
            raise UserError(f"freeze.layers {method.freeze_layers}: this model has {fewest}; give at most as many")
        for stack in stacks:
            for layer in stack[: method.freeze_layers]:
                layer.requires_grad_(False)
    return model


def _with_adapter(model: Any, method: Method, seed: int, tokenizer: Any) -> Any:
    from peft import get_peft_model  # imported here: it takes a second

    if method.name in VIRTUAL and getattr(model.config, "is_encoder_decoder", False):
        raise _unfit(model, method, ", since they have an encoder")
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if method.name in VIRTUAL and context is not None and method.tokens >= context:
        raise UserError(
            f"prompt.tokens {method.tokens}: they fill the model's context of {context:,} tokens. Give fewer, like 20."
        )
    empty = model.device.type == "meta"  # a plan's model: without numbers there is nothing to start from or to try
    ids = None if empty else _start_ids(model, method, seed, tokenizer)
    with torch.random.fork_rng(devices=[]), _quiet():
        torch.manual_seed(seed_of(seed, "lora" if method.name == "qlora" else method.name))
        try:
            config = _config(model, method)
            prepared = get_peft_model(model, config)
            if ids is not None and method.name == "prompt":
                start_embeddings(prepared, ids)
            if ids is not None and method.name == "prefix" and method.width is None:
                start_prefix(prepared, ids)
            exact = not config.is_prompt_learning or empty or computes_exactly(prepared)
        except (ValueError, TypeError, AttributeError, NotImplementedError, IndexError) as error:
            raise _unfit(model, method, f" ({error})") from error
    if not exact:
        raise _unfit(model, method)
    return prepared


def _unfit(model: Any, method: Method, why: str = "") -> UserError:
    kind = causal_model(model).config.model_type
    return UserError(f"method {method.name}: {kind} models can't take it{why}. Use lora, or a base of another kind.")


def _config(model: Any, method: Method) -> Any:
    """What PEFT is told."""
    from peft import LoraConfig, PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig

    from tunesmith.model.bottleneck import BottleneckConfig, targets_of

    task = "SEQ_2_SEQ_LM" if getattr(model.config, "is_encoder_decoder", False) else "CAUSAL_LM"
    prompt = {"task_type": task, "num_virtual_tokens": method.tokens}
    if method.name != "prefix":
        prompt["num_attention_heads"] = 1  # PEFT asks for it, for prefixes alone; recurrent models have none
    width = method.width or model.config.get_text_config().hidden_size
    match method.name:
        case "lora" | "qlora":
            _check_targets(model, method.targets)
            return LoraConfig(
                task_type=task,
                r=method.rank,
                lora_alpha=method.alpha,
                lora_dropout=method.dropout,
                target_modules=list(method.targets) or "all-linear",
                bias="none",
                use_rslora=method.rslora,
                use_dora=method.dora,
                fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
            )
        case "bottleneck":
            targets = targets_of(model)
            return BottleneckConfig(
                task_type=task, size=method.size, dropout=method.dropout, target_modules=sorted(targets)
            )
        case "prompt":
            return PromptTuningConfig(prompt_tuning_init="RANDOM", **prompt)
        case "p_tuning":
            return PromptEncoderConfig(encoder_hidden_size=width, **prompt)
        case "prefix":
            return PrefixTuningConfig(encoder_hidden_size=width, prefix_projection=method.width is not None, **prompt)
    raise AssertionError(f"method {method.name} has no adapter")


def _start_ids(model: Any, method: Method, seed: int, tokenizer: Any) -> Tensor | None:
    """(V,) the tokens that virtual tokens start from: of the text, cut or repeated; else drawn from the vocabulary."""
    if method.name not in ("prompt", "prefix"):
        return None
    if method.start is None:
        special = set() if tokenizer is None else set(tokenizer.all_special_ids)
        size = model.get_input_embeddings().weight.shape[0] if tokenizer is None else len(tokenizer)
        words = [token for token in range(size) if token not in special]
        return torch.from_numpy(stream(seed, "virtual tokens").choice(words, method.tokens))
    assert tokenizer is not None, "text needs a tokenizer"
    found = tokenizer(method.start, add_special_tokens=False)["input_ids"]
    if not found:
        raise UserError(f"prompt.start {method.start!r} holds no token to start from. Give words, or take it out.")
    return torch.tensor([found[place % len(found)] for place in range(method.tokens)])


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warning that PEFT 0.21 draws from Transformers 5.2x, of no concern to whoever tunes a model."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        yield


def _check_targets(model: Any, targets: Sequence[str]) -> None:
    linear = [(name, module) for name, module in model.named_modules() if isinstance(module, (nn.Linear, Conv1D))]
    missing = [t for t in targets if not any(_is_target(name, t) for name, _ in linear)]
    if missing:
        known = sorted({name.rpartition(".")[2] for name, _ in linear})
        raise UserError(
            f"lora targets {', '.join(missing)}: this model has no linear layer of that name. It has {', '.join(known)}"
        )
    embedding = model.get_input_embeddings().weight
    tied = [t for t in targets for name, module in linear if _is_target(name, t) and module.weight is embedding]
    if tied:
        raise UserError(
            f"lora targets {tied[0]}: this model's output head is its token embedding, which an adapter would change "
            f"for one and not for the other once it is merged. Take it out."
        )


def _is_target(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")
