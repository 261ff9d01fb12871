"""What training is told: plain values, checked once."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

from tunesmith.base.errors import UserError

ScheduleName = Literal["cosine", "linear", "constant", "wsd"]
OptimizerName = Literal["adamw", "adamw_8bit", "adafactor"]
Precision = Literal["fp32", "bf16", "fp16"]
WATCHING = frozenset(
    {"checkpoint_every", "keep_checkpoints", "background_checkpoints", "evaluate_every"}
    | {"threads", "sharding", "low_memory"}
)
"""Settings without effect on the trained weights (but `evaluate_every`, with `patience`, decides when to stop)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    """How a model is trained.

    tokens_per_step: tokens of an optimizer step. tokens_per_batch: room of one packed row, what is computed at a time.
    warmup: share of the steps in which the learning rate rises, unless warmup_steps says how many. floor: share of the
        peak at which a decay ends. decay: for "wsd", the last share of the steps, in which the learning rate falls.
    neftune: alpha of the noise on the embeddings. skip_non_finite: steps that may be left out.
    patience: measurements without a better held-out loss after which training ends; 0 is never.
    clip: largest norm of the gradient; 0 leaves it as it is.
    precision: of the computation; "bf16" and "fp16" are autocast, "fp16" with a scaled loss; trained weights
        and the optimizer stay in the model's own type.
    checkpoint_every, evaluate_every: in steps; 0 is never. threads: of the CPU; 0 leaves PyTorch's choice.
    low_memory: on a CPU, give freed memory back at once, which takes time.
    """

    learning_rate: float = 2e-5
    tokens_per_step: int = 32768
    tokens_per_batch: int = 4096
    optimizer: OptimizerName = "adamw"
    warmup: float = 0.03
    warmup_steps: int | None = None
    schedule: ScheduleName = "cosine"
    decay: float = 0.2
    floor: float = 0.1
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    clip: float = 1.0
    neftune: float = 0.0
    precision: Precision = "fp32"
    activation_checkpointing: bool = False
    sharding: Literal["none", "fsdp"] = "none"
    skip_non_finite: int = 0
    patience: int = 0
    background_checkpoints: bool = False
    seed: int = 0
    checkpoint_every: int = 0
    keep_checkpoints: int = 2
    evaluate_every: int = 0
    compile: bool = False
    threads: int = 0
    low_memory: bool = False

    def __post_init__(self) -> None:
        faults = [fault for sound, fault in self._checks() if not sound]
        if faults:
            raise UserError("these training settings can't be used:\n" + "\n".join(f"  {fault}" for fault in faults))

    def _checks(self) -> list[tuple[bool, str]]:
        step, batch = self.tokens_per_step, max(1, self.tokens_per_batch)
        near = sorted({max(1, step // batch) * batch, -(-step // batch) * batch})
        nearest = " or ".join(map(str, near))
        return [
            (self.learning_rate > 0, f"learning_rate {self.learning_rate} trains nothing; give one above 0, like 2e-5"),
            (self.tokens_per_batch > 0, f"tokens_per_batch {self.tokens_per_batch} holds nothing; try 4096"),
            (
                step > 0 and step % batch == 0,
                f"tokens_per_step {step} is not a multiple of tokens_per_batch {batch}, so no number of packed rows "
                f"makes a step; the nearest that is: {nearest}",
            ),
            (
                self.sharding == "none" or self.optimizer == "adamw",
                f"sharding fsdp goes with optimizer adamw, not {self.optimizer}, whose state can't be cut into parts",
            ),
            (
                self.warmup_steps is None or self.warmup_steps >= 0,
                f"warmup_steps {self.warmup_steps} is below 0; give the number of steps, or warmup, a share of them",
            ),
            (0 < self.decay <= 1, f"decay {self.decay} is not a share of the steps; give above 0 to 1, like 0.2"),
            (self.skip_non_finite >= 0, f"skip_non_finite {self.skip_non_finite} is below 0; 0 leaves out no step"),
            (0 <= self.warmup < 1, f"warmup {self.warmup} is not a share of the steps; give 0 to below 1, like 0.03"),
            (0 <= self.floor <= 1, f"floor {self.floor} is not a share of the peak; give 0 to 1, like 0.1"),
            (self.clip >= 0, f"clip {self.clip} is below 0; give the largest norm wanted, or 0 for none"),
            (self.weight_decay >= 0, f"weight_decay {self.weight_decay} is below 0; give 0 or more, like 0.1"),
            (self.keep_checkpoints >= 1, f"keep_checkpoints {self.keep_checkpoints} keeps none; give 1 or more"),
        ]

    @property
    def batches_per_step(self) -> int:
        """Packed rows of one optimizer step."""
        return self.tokens_per_step // self.tokens_per_batch

    def identity(self) -> dict[str, Any]:
        """What decides the trained weights: of all but what only watches or saves, what differs from the default.

        So a run of a version that had fewer settings is still the same run, as long as the default of a new one is what
        that version did, and no default changes: recipes, which are kept with each run, have defaults of their own.
        """
        free = WATCHING - ({"evaluate_every"} if self.patience else set())
        defaults = {field.name: field.default for field in fields(self) if field.name not in free}
        return {name: getattr(self, name) for name, value in defaults.items() if getattr(self, name) != value}
