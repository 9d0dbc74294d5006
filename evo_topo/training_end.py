"""How a training ends: with a result, in divergence, or below a hurdle. No torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TrainingResult:
    """What a training cost and where it ended.

    Attributes:
        examples: Training examples seen, counted with repetition.
        steps: Optimiser steps.
        seconds: Wall-clock time.
        loss: Mean training loss of the last steps (up to 20), in nats, with augmentation and
            label smoothing as the recipe asks.
        halfway_loss: The same of the second quarter of the recipe's steps, which says by half-time how
            the training will end; None where there are fewer than four steps.
    """

    examples: int
    steps: int
    seconds: float
    loss: float
    halfway_loss: float | None


class Diverged(ArithmeticError):
    """The loss left every sensible range.

    Attributes:
        step: Optimiser steps done when it was noticed.
        value: Mean loss of steps until then, or what the network ends with, in nats.
    """

    def __init__(self, step: int, value: float) -> None:
        super().__init__(step, value)  # these arguments rebuild it in another process
        self.step, self.value = step, value

    def __str__(self) -> str:
        return f"loss {self.value:.3g} at step {self.step}; lower the learning rate"


class Stopped(Exception):
    """The training loss was above the hurdle at half-time, and the training ended there.

    Attributes:
        result: What the training cost until then and where it stood; its halfway loss is a number.
        hurdle: The most that the halfway loss might have been, in nats.
    """

    def __init__(self, result: TrainingResult, hurdle: float) -> None:
        super().__init__(result, hurdle)  # these arguments rebuild it in another process
        self.result, self.hurdle = result, hurdle

    def __str__(self) -> str:
        return (
            f"expected a training loss of at most {self.hurdle:.4g} in the second quarter of the steps, "
            f"got {self.result.halfway_loss:.4g}; stopped at step {self.result.steps}"
        )
