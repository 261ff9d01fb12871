"""What can be seen to go wrong in a run: each watch reads the lines of metrics.jsonl and says what it finds.

Thresholds are the constants of each watch, chosen on healthy noisy curves that should give no warning;
tests/train/test_monitor.py holds them to that, and docs/watching.md says how often they still do.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import fmean, median
from typing import Any, ClassVar, Protocol

Line = Mapping[str, Any]


def held_out_loss(evaluation: Mapping[str, Mapping[str, Any]]) -> float | None:
    """The loss over all supervised held-out tokens together, from each evaluator's "loss" and "tokens"."""
    losses = [(each["loss"], each.get("tokens", 1)) for each in evaluation.values() if "loss" in each]
    return sum(loss * tokens for loss, tokens in losses) / sum(tokens for _, tokens in losses) if losses else None


class Watch(Protocol):
    """One kind of trouble."""

    cause: ClassVar[str]

    def see(self, line: Line) -> str | None:
        """What this line, after those before it, gives reason to say."""
        ...


def all_watches() -> list[Watch]:
    return [
        *(LossExplodes(), GradientExplodes(), GradientVanishes(), LossDoesNotFall()),
        *(HeldOutRises(), MemoryGrows(), DeviceIdles(), StepsSkipped()),
    ]


def _finite(line: Line, key: str) -> float | None:
    value = line.get(key)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _spread(values: Sequence[float], middle: float) -> float:
    """A standard deviation that outliers do not move: 1.4826 times the median distance from the median."""
    return 1.4826 * median(abs(value - middle) for value in values)


class _Explodes:
    """RUN steps in a row far above the median of up to BEFORE steps before them."""

    RUN, BEFORE, FEWEST, SPREADS = 3, 50, 20, 10.0

    def __init__(self, key: str, factor: float, least: float) -> None:
        self._key, self._factor, self._least = key, factor, least
        self._before: deque[float] = deque(maxlen=self.BEFORE)
        self._last: deque[float] = deque(maxlen=self.RUN)

    def rise(self, line: Line) -> tuple[float, float] | None:
        """The lowest of the last steps and the median before them, where the former is far above."""
        value = _finite(line, self._key)
        if value is None:
            return None
        if len(self._last) == self.RUN:
            self._before.append(self._last[0])
        self._last.append(value)
        if len(self._before) < self.FEWEST:
            return None
        middle, low = median(self._before), min(self._last)
        if low < max(self._factor * middle, middle + self._least):
            return None
        return (low, middle) if low > middle + self.SPREADS * _spread(self._before, middle) else None


class LossExplodes:
    """Three losses in a row of at least twice the median of the 50 before, 0.2 nats and 10 spreads above it."""

    cause: ClassVar[str] = "loss explodes"

    def __init__(self) -> None:
        self._explodes = _Explodes("loss", factor=2.0, least=0.2)

    def see(self, line: Line) -> str | None:
        if not (found := self._explodes.rise(line)):
            return None
        return (
            f"the loss explodes: {found[0]:.3g} or more in the last {_Explodes.RUN} steps, {found[1]:.3g} in most "
            f"before. Lower learning_rate to a third, raise warmup, and keep clip at 1."
        )


class GradientExplodes:
    """Three gradient norms in a row of at least ten times the median of the 50 before, and 10 spreads above it."""

    cause: ClassVar[str] = "gradient explodes"

    def __init__(self) -> None:
        self._explodes = _Explodes("grad_norm", factor=10.0, least=0.0)

    def see(self, line: Line) -> str | None:
        if not (found := self._explodes.rise(line)):
            return None
        return (
            f"the gradient explodes: its norm was {found[0]:.3g} or more in the last {_Explodes.RUN} steps, "
            f"{found[1]:.3g} in most before. Lower learning_rate, raise warmup, keep clip at 1, and look at the rows "
            f"of these steps: garbled text does it too."
        )


class GradientVanishes:
    """The median of 20 norms is below a thousandth of that of the first 20, though the loss is above a twentieth of
    what it was; or ten norms in a row are next to zero."""

    cause: ClassVar[str] = "gradient vanishes"
    WINDOW, SHARE, NOTHING, ZEROS, LEARNED = 20, 1e-3, 1e-9, 10, 0.05

    def __init__(self) -> None:
        self._first: list[tuple[float, float]] = []
        self._last: deque[tuple[float, float]] = deque(maxlen=self.WINDOW)

    def see(self, line: Line) -> str | None:
        norm, loss = _finite(line, "grad_norm"), _finite(line, "loss")
        if norm is None or loss is None:
            return None
        if len(self._first) < self.WINDOW:
            self._first.append((norm, loss))
        self._last.append((norm, loss))
        recent = list(self._last)[-self.ZEROS :]
        if len(recent) == self.ZEROS and max(norm for norm, _ in recent) < self.NOTHING and loss > self.NOTHING:
            return (
                f"the gradient is zero: its norm was below {self.NOTHING:g} in the last {self.ZEROS} steps, so nothing "
                f"is learned. Check what is trained (freeze, lora.targets), and with fp16 try bf16 or fp32."
            )
        if len(self._first) < self.WINDOW or len(self._last) < self.WINDOW:
            return None
        (norm_then, loss_then), (norm_now, loss_now) = (_medians(pairs) for pairs in (self._first, self._last))
        if norm_now >= self.SHARE * norm_then or loss_now <= self.LEARNED * loss_then:
            return None
        return (
            f"the gradient vanishes: its norm is {norm_now:.2g}, {norm_then:.2g} at first, while the loss is still "
            f"{loss_now:.3g}. With fp16 try bf16 or fp32; else check freeze and lora.targets, and lower weight_decay."
        )


def _medians(pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return median(one for one, _ in pairs), median(other for _, other in pairs)


class LossDoesNotFall:
    """The mean loss of the last fifth of the steps is not 2% below that of the highest of the first three twenties.
    Looked at from step 80, when the learning rate has long stopped rising: 40 steps ago, and four times its rise."""

    cause: ClassVar[str] = "loss does not fall"
    FEWEST, SETTLED, RISES, FIRST, FALL, LEARNED = 80, 40, 4, 20, 0.02, 0.05

    def __init__(self) -> None:
        self._losses: list[float] = []
        self._peak, self._since_peak = 0.0, 0

    def see(self, line: Line) -> str | None:
        loss, rate = _finite(line, "loss"), _finite(line, "learning_rate")
        if loss is None:
            return None
        self._losses.append(loss)
        if rate is not None and rate > self._peak * (1 + 1e-9):
            self._peak, self._since_peak = rate, 0
        self._since_peak += 1
        count = len(self._losses)
        settled = max(self.SETTLED, self.RISES * (count - self._since_peak))
        if count < self.FEWEST or self._since_peak < settled or count % self.FIRST:
            return None
        first = max(fmean(self._losses[start : start + self.FIRST]) for start in range(0, 3 * self.FIRST, self.FIRST))
        last = fmean(self._losses[-max(count // 5, self.FIRST) :])
        if last < (1 - self.FALL) * first or last < self.LEARNED:
            return None
        return (
            f"the loss does not fall: {first:.3g} in the first steps, {last:.3g} now, after {count} steps. Raise "
            f"learning_rate tenfold if it stays level, lower it if it rises; check that the prompts hold what the "
            f"responses need (`tunesmith inspect`) and that enough is trained (lora.rank, lora.targets)."
        )


class HeldOutRises:
    """The mean held-out loss of the last three measurements lies above the lowest mean of three before, by 4% and by
    five times the noise between measurements, while the training loss has fallen since by 1%."""

    cause: ClassVar[str] = "held-out loss rises"
    TOGETHER, RISE, NOISES, FALL = 3, 0.04, 5.0, 0.01

    def __init__(self) -> None:
        self._losses: list[float] = []
        self._measured: list[tuple[int, float, float]] = []

    def see(self, line: Line) -> str | None:
        if (loss := _finite(line, "loss")) is not None:
            self._losses.append(loss)
        evaluation = line.get("evaluation")
        held_out = held_out_loss(evaluation) if evaluation else None
        if held_out is None or not math.isfinite(held_out) or not self._losses:
            return None
        self._measured.append((int(line["step"]), held_out, fmean(self._losses)))
        self._losses = []
        return self._rises()

    def _rises(self) -> str | None:
        size = self.TOGETHER
        steps, held_out, trained = zip(*self._measured, strict=True)
        means = [fmean(held_out[start : start + size]) for start in range(len(held_out) - size + 1)]
        if len(means) < size + 1:
            return None
        best = min(range(len(means) - size), key=means.__getitem__)
        rise = means[-1] - means[best]
        if rise < max(self.RISE * means[best], self.NOISES * _noise(held_out)):
            return None
        before, now = fmean(trained[best : best + size]), fmean(trained[-size:])
        if now > (1 - self.FALL) * before or min(held_out[-size:]) <= means[best]:
            return None
        return (
            f"the held-out loss rises while the training loss falls: {means[best]:.3f} around step {steps[best + 1]}, "
            f"{means[-1]:.3f} now; training {before:.3f}, {now:.3f} now. The model learns its rows by heart: set "
            f"patience to keep the best step, train fewer epochs, lower learning_rate, add data or raise dropout."
        )


def _noise(values: Sequence[float]) -> float:
    """The standard deviation of measurements around their trend, from each one's distance to its two neighbours."""
    off = [abs(b - (a + c) / 2) for a, b, c in zip(values, values[1:], values[2:], strict=False)]
    return 1.4826 * median(off) / math.sqrt(1.5)


class MemoryGrows:
    """Past the first fifth of the run (and 50 steps), the mean memory of ten stretches of equal length rises from each
    to the next, never by less than 0.2% or half of what is usual, and by 3% altogether."""

    cause: ClassVar[str] = "memory grows"
    WARM_UP, STRETCHES, MOST, EVEN, EACH, RISE = 50, 10, 240, 0.5, 0.002, 0.03

    def __init__(self) -> None:
        self._every, self._seen = 1, 0
        self._kept: list[float] = []

    def see(self, line: Line) -> str | None:
        memory = _finite(line, "memory")
        if memory is None:
            return None
        self._seen += 1
        if self._seen <= self.WARM_UP or self._seen % self._every:
            return None
        self._kept.append(memory)
        if len(self._kept) == self.MOST:  # a longer run is kept more coarsely
            self._kept, self._every = self._kept[1::2], 2 * self._every
        return self._grows() if len(self._kept) % 12 == 0 and len(self._kept) >= 60 else None

    def _grows(self) -> str | None:
        late = self._kept[len(self._kept) // 5 :]
        size = len(late) // self.STRETCHES
        means = [fmean(late[i * size : (i + 1) * size]) for i in range(self.STRETCHES)]
        rises = [after - before for before, after in pairwise(means)]
        even = max(self.EVEN * median(rises), self.EACH * means[0])
        if min(rises) < even or means[-1] - means[0] < self.RISE * means[0]:
            return None
        return (
            f"memory grows steadily: {means[0] / 2**30:.2f} GiB, {means[-1] / 2**30:.2f} GiB now. Something "
            f"is kept from step to step: switch off track, compile and samples, one at a time. A run that is stopped "
            f"with Ctrl-C and started again goes on where it was, with fresh memory."
        )


@dataclass
class DeviceIdles:
    """Of the time of the last 50 steps (20 at least, the first ten left out), over 20% was spent waiting for data."""

    cause: ClassVar[str] = "device idles"
    START: ClassVar[int] = 10
    FEWEST: ClassVar[int] = 20
    SHARE: ClassVar[float] = 0.2

    _seen: int = 0
    _clock: float | None = None
    _steps: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=50))

    def see(self, line: Line) -> str | None:
        waiting, clock = _finite(line, "waiting"), _finite(line, "seconds")
        if waiting is None or clock is None:
            return None
        taken = clock - self._clock if self._clock is not None else 0.0
        self._clock, self._seen = clock, self._seen + 1
        if self._seen <= self.START:
            return None
        self._steps.append((waiting * taken, taken))
        total = sum(taken for _, taken in self._steps)
        if len(self._steps) < self.FEWEST or total <= 0:
            return None
        share = sum(waited for waited, _ in self._steps) / total
        if share <= self.SHARE:
            return None
        return (
            f"the device idles: {share:.0%} of the last {len(self._steps)} steps went into waiting for data. "
            f"Put the run folder on a faster disk, leave more CPU cores to this process, or raise tokens_per_batch."
        )


class StepsSkipped:
    """A step was left out because its loss or gradient was not a finite number."""

    cause: ClassVar[str] = "steps skipped"

    def __init__(self) -> None:
        self._steps: list[int] = []

    def see(self, line: Line) -> str | None:
        if "skipped" not in line:
            return None
        self._steps.append(int(line["step"]))
        which = ", ".join(map(str, self._steps[-5:]))
        many = f"{len(self._steps)} steps were" if len(self._steps) > 1 else "a step was"
        return (
            f"{many} left out, loss or gradient not being finite (the last: {which}). Look at their rows, `skipped` in "
            f"metrics.jsonl; lower learning_rate, raise warmup, or train in bf16 or fp32 instead of fp16."
        )
