"""Distillation: a network learns from another one's answers, beside the targets (Hinton et al. 2015)."""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn import functional

from evo_topo.evaluation import logits_of
from evo_topo.task import Task

TEMPERATURE = 2.0
"""Logits are divided by it: what a teacher thinks of the wrong classes then counts for more."""


@dataclass(frozen=True, eq=False)
class Teaching:
    """A teacher's answers to all training examples.

    The teacher sees each example once, as it is: not every epoch anew, shifted and mirrored as the pupil
    sees it, for a teacher costs more than its pupil.

    Attributes:
        answers: Probabilities (N, classes) at `TEMPERATURE`.
        share: Share of the loss that is the distance from them, in [0, 1].
    """

    answers: Tensor
    share: float

    @classmethod
    def of(cls, teacher: nn.Module, task: Task, share: float) -> "Teaching":
        """Asks a teacher, which stays as it is, about the training split of a task.

        Raises:
            ValueError: If the share is not from 0 to 1.
        """
        if not 0 <= share <= 1:
            raise ValueError(f"share: expected a number from 0 to 1, got {share!r}")
        logits = logits_of(teacher, task.train.inputs, task)
        return cls(torch.softmax(logits / TEMPERATURE, 1), share)

    @cached_property
    def blind_loss(self) -> float:
        """The loss, in nats, of who takes all classes for equally likely."""
        guess = math.log(self.answers.shape[1])
        entropy = -torch.xlogy(self.answers, self.answers).sum(1).mean().item()
        return (1 - self.share) * guess + self.share * TEMPERATURE**2 * (guess - entropy)

    def losses(self, logits: Tensor, targets: Tensor, index: Tensor, label_smoothing: float) -> Tensor:
        """The pupil's losses (B,): (1 - s) x cross-entropy + s T^2 x divergence from the teacher.

        Args:
            logits: The pupil's (B, classes).
            targets: Classes (B,).
            index: Numbers of the examples (B,), on the device of the answers.
            label_smoothing: Of the cross-entropy.
        """
        hard = functional.cross_entropy(logits, targets, reduction="none", label_smoothing=label_smoothing)
        cooled = functional.log_softmax(logits / TEMPERATURE, 1)
        # T^2 keeps the gradients of both parts in the same relation at any temperature
        soft = functional.kl_div(cooled, self.answers[index], reduction="none").sum(1) * TEMPERATURE**2
        return (1 - self.share) * hard + self.share * soft
