"""The recipe's section `train`: the method, the schedule, what fits in memory, and what is watched."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tunesmith.recipe.section import Count, Fraction, Section, Text

METHODS_OF = {
    "freeze": ("full",),
    "lora": ("lora", "qlora"),
    "bottleneck": ("bottleneck",),
    "prompt": ("prompt", "p_tuning", "prefix"),
}
"""The methods that a section is for."""
LEARNING_RATES = {
    "full": 2e-5, "lora": 2e-4, "qlora": 2e-4, "bottleneck": 2e-4, "prompt": 3e-2, "p_tuning": 3e-3, "prefix": 5e-3
}  # fmt: skip


def _multiples(of: int, near: int) -> list[int]:
    """The multiples of a number on either side of another; one if it is a multiple itself, or lies below the first."""
    return sorted({max(1, near // of) * of, -(-near // of) * of})


class Freeze(Section):
    """What stays as it is with `method: full`."""

    embeddings: bool = False
    """Leave the token embeddings, and an output projection tied to them, as they are."""
    layers: Annotated[int, Field(ge=0)] = 0
    """Leave the first layers as they are, this many."""


class Lora(Section):
    """The adapter, for `method: lora` and `method: qlora`."""

    rank: Annotated[int, Field(ge=1, le=4096)] = 16
    """Inner width of the adapter: the higher, the more it can learn, and the more memory it takes."""
    alpha: Annotated[float, Field(gt=0)] = 32.0
    """Scale of the adapter: its output is multiplied by alpha / rank, with `rslora` by alpha / sqrt(rank)."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Part of an adapter's inputs set to 0 at random while training; 0.05 to 0.1 helps with a few hundred rows."""
    targets: tuple[Text, ...] = ()
    """Names of the linear layers that get an adapter; by default all but the output projection."""
    rslora: bool = False
    """Scale by alpha / sqrt(rank), which keeps high ranks learning (arXiv:2312.03732)."""
    dora: bool = False
    """Train the length of each weight row apart from its direction: slower, often better at low ranks (2402.09353)."""


class Bottleneck(Section):
    """The adapters of `method: bottleneck`: two small layers behind attention and MLP of every layer (1902.00751)."""

    size: Annotated[int, Field(ge=1, le=65536)] = 64
    """Their inner width."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Part of their inputs set to 0 at random while training."""


class Prompt(Section):
    """What `method: prompt`, `p_tuning` and `prefix` put before every conversation."""

    tokens: Annotated[int, Field(ge=1, le=4096)] = 20
    """Virtual tokens."""
    start: Text | None = None
    """For `prompt`: text whose embeddings they start from; by default random words of the vocabulary."""
    width: Annotated[int, Field(ge=1, le=65536)] | None = None
    """For `p_tuning`: hidden size of the encoder that makes them; for `prefix`: of the reparametrisation (none)."""


class Distill(Section):
    """A teacher whose distribution over the next token is learned beside the data (Hinton, arXiv:1503.02531)."""

    teacher: Text
    """The teacher: a model id of the Hub, or a local folder, with the same vocabulary."""
    temperature: Annotated[float, Field(gt=0, le=100)] = 2.0
    """Softens both distributions; the soft loss is multiplied by its square."""
    share: Fraction = 0.5
    """The soft loss's share; the rest is the loss on the data."""
    dtype: Literal["float32", "bfloat16", "float16", "auto"] = "auto"
    """What the teacher's weights are held in; `auto` is as they were saved."""


class Train(Section):
    """How the model is trained."""

    method: Literal["full", "lora", "qlora", "bottleneck", "prompt", "p_tuning", "prefix"] = "full"
    """`full` changes every weight; the others train small parts beside the frozen weights."""
    learning_rate: Annotated[float, Field(gt=0, lt=1)] = Field(
        default_factory=lambda given: LEARNING_RATES[given.get("method", "full")]
    )
    """The peak. By default 2e-5 for `full`, 2e-4 for `lora`, `qlora`, `bottleneck`; 3e-2, 3e-3, 5e-3 for the rest."""
    epochs: Annotated[float, Field(gt=0, le=1000)] = 2.0
    """Draws of the mixture that are trained on; 0.5 is the first half of one."""
    max_length: Annotated[int, Field(ge=16)] = 2048
    """Longest sequence, in tokens. No answer is ever cut."""
    too_long: Literal["drop", "oldest_turns"] = "drop"
    """What becomes of longer rows: dropped, or shortened by whole turns, the oldest first. Either is counted."""
    supervise: Literal["assistant", "last"] = "assistant"
    """Train on every answer of a conversation, or on the last alone. A message's own `train: false` counts as well."""
    special_tokens: Literal["refuse", "keep_seen"] = "refuse"
    """Rows with a special token typed in their text: refused, or kept where it is only seen, as serving shows it."""
    tokens_per_batch: Annotated[int, Field(ge=16)] = Field(default_factory=lambda given: given.get("max_length", 2048))
    """Tokens per packed row, the unit that has to fit in memory; by default `max_length`."""
    tokens_per_step: Annotated[int, Field(ge=16)] = Field(
        default_factory=lambda given: _multiples(given.get("tokens_per_batch", 2048), 32768)[-1]
    )
    """Tokens per optimizer step, supervised or not: a multiple of `tokens_per_batch`; by default the next to 32768."""
    optimizer: Literal["adamw", "adamw_8bit", "adafactor"] = "adamw"
    """`adamw_8bit` (needs bitsandbytes) holds a quarter of AdamW's state, `adafactor` next to none."""
    schedule: Literal["cosine", "linear", "constant", "wsd"] = "cosine"
    """The learning rate's way from its peak to `floor` times the peak; `wsd` is constant until the last part."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.03
    """Part of the steps in which the learning rate rises to its peak."""
    warmup_steps: Count | None = None
    """Instead of `warmup`: this many steps."""
    decay: Annotated[float, Field(gt=0, le=1)] = 0.2
    """For `wsd`: the last part of the steps, in which the learning rate falls."""
    floor: Fraction = 0.1
    """Part of the peak at which `cosine`, `linear` and `wsd` end."""
    weight_decay: Annotated[float, Field(ge=0, lt=1)] = 0.01
    """Not applied to norms and biases."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    """AdamW's decay rates of the running means of the gradient and of its square: the nearer to 1, the longer."""
    clip: Annotated[float, Field(ge=0)] = 1.0
    """Largest norm of the gradient; a larger one is scaled down to it. 0 leaves it as it is."""
    neftune: Annotated[float, Field(ge=0)] = 0.0
    """Noise on the embeddings while training, NEFTune's alpha (arXiv:2310.05914); 5 is usual, 0 is none."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """What matrix products are computed in. Trained weights and the loss stay fp32; frozen weights are held in it."""
    activation_checkpointing: bool = False
    """Compute activations twice instead of keeping them: far less memory, about a third more time."""
    compile: bool = False
    """Compile the model with torch.compile: a slow start, faster steps."""
    threads: Annotated[int, Field(ge=0)] = 0
    """CPU threads; 0 leaves the choice to PyTorch, one per core."""
    low_memory: bool = False
    """On a CPU: give freed memory back at once. Takes 1.5 to 5 times less of it, and up to half more time."""
    sharding: Literal["none", "fsdp"] = "none"
    """With several processes: each holds the whole model (`none`), or a part of it (`fsdp`)."""
    skip_non_finite: Annotated[int, Field(ge=0)] = 0
    """Steps that may be left out because loss or gradient is not finite; one more stops the run."""
    checkpoint_every: Annotated[int, Field(ge=0)] = 200
    """Steps between checkpoints; 0 for none."""
    keep_checkpoints: Count = 2
    """Checkpoints that stay on disk, the newest ones; the best stays besides."""
    background_checkpoints: bool = False
    """Write checkpoints beside the training, which then waits only for a copy in memory."""
    evaluate_every: Annotated[int, Field(ge=0)] = 0
    """Steps between measurements of held-out losses and samples while training; 0 for only before and after."""
    patience: Annotated[int, Field(ge=0)] = 0
    """Stop after this many measurements without a better loss on `hold_out.validation`, and keep the best; 0 is off."""
    samples: Annotated[int, Field(ge=0, le=20)] = 10
    """Held-out prompts, of all levels and many clusters, that are answered and scored at every measurement."""
    track: tuple[Literal["tensorboard", "wandb", "mlflow", "trackio"], ...] = ()
    """Where metrics go besides metrics.jsonl; each is an extra, as in `pip install tunesmith[tensorboard]`."""
    freeze: Freeze = Freeze()
    """What stays as it is, for `method: full`; by default nothing."""
    lora: Lora = Lora()
    """The adapter, for `method: lora` and `qlora`; by default of rank 16."""
    bottleneck: Bottleneck = Bottleneck()
    """The adapters, for `method: bottleneck`; by default 64 wide."""
    prompt: Prompt = Prompt()
    """The virtual tokens, for `method: prompt`, `p_tuning` and `prefix`; by default 20."""
    distill: Distill | None = None
    """A teacher to learn from beside the data; by default none."""

    @model_validator(mode="after")
    def _no_value_without_effect(self) -> Train:
        for section, methods in METHODS_OF.items():
            if self.method not in methods:
                use = " or ".join(f"`{method}`" for method in methods)
                self._refuse_without_effect((section,), f"with `method: {self.method}`; take it out, or use {use}")
        if self.schedule == "constant":
            self._refuse_without_effect(("floor",), "with `schedule: constant`; take it out, or use another schedule")
        if self.schedule != "wsd":
            self._refuse_without_effect(("decay",), f"with `schedule: {self.schedule}`; take it out, or use `wsd`")
        if not self.evaluate_every:
            without = "without measurements while training; give `evaluate_every`"
            self._refuse_without_effect(("patience", "samples"), without)
        return self

    @model_validator(mode="after")
    def _sizes_fit(self) -> Train:
        if self.tokens_per_batch < self.max_length:
            raise ValueError(
                f"tokens_per_batch = {self.tokens_per_batch} is below max_length = {self.max_length}: the longest "
                "sequences would fit in no batch; raise the one or lower the other"
            )
        if self.tokens_per_step % self.tokens_per_batch:
            nearest = " or ".join(map(str, _multiples(self.tokens_per_batch, self.tokens_per_step)))
            raise ValueError(
                f"tokens_per_step = {self.tokens_per_step} is no multiple of tokens_per_batch = "
                f"{self.tokens_per_batch} (max_length unless given), so no batches fill a step; nearest: {nearest}"
            )
        return self
