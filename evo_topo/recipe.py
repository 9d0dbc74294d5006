"""How a network trains: plain numbers, no torch."""

import math
from dataclasses import dataclass

LEAST_STEPS = 750
"""Steps that doubling the batch leaves a training: with fewer it learns less from as many examples. At equal
examples, networks of Fashion-MNIST came to the same loss with 1,170 steps of 256 as with 4,690 of 64."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How one network trains: stochastic gradient descent over a fixed number of examples.

    Training is measured in examples, not epochs, so that equal recipes mean equal compute
    whatever the size of the data set.

    Raises:
        ValueError: If a field is out of its range, not finite, or not a whole number where
            one is needed.
    """

    examples: int
    """Training examples that a network sees, counted with repetition."""

    batch_size: int = 64
    """Examples per optimiser step, unless the training is long."""

    batch_doublings: int = 0
    """How often a long training may double its batch, and the learning rate with it (Goyal et al. 2017).
    Larger batches take less time per example and, where steps are many, learn as much from as many."""

    learning_rate: float
    """Largest learning rate with `batch_size`, reached at the end of the warm-up."""

    momentum: float = 0.9
    """Nesterov momentum."""

    weight_decay: float = 5e-4
    """L2 penalty on weight matrices and kernels. Biases and BatchNorm parameters have none, nor has a weight
    that is alone in its filter: BatchNorm hides its size, and nothing but the penalty would change it."""

    full_decay: int = 0
    """Number of weights in matrices and kernels from which on `weight_decay` holds. A network of fewer has
    less, by the root of its share of them: few weights have little noise to fit, and cannot spare a unit. 0
    for the same decay whatever the network."""

    clip_norm: float = 0.0
    """Length that a step's gradient over all parameters is cut to where it is longer (Pascanu et al. 2013); 0
    for no limit. A BatchNorm lengthens the gradient by up to 316 where all that it reads goes quiet."""

    warmup: float = 0.1
    """Share of the steps in which the learning rate rises linearly to its largest value."""

    crop_padding: int = 0
    """Each training image is shifted at random by up to this many pixels, filled with zeros."""

    flip: bool = False
    """Mirror each training image left to right with probability one half."""

    erase: float = 0.0
    """Probability with which a training image loses a rectangle of 2 to 20 % of its area, filled with zeros
    (random erasing: Zhong et al. 2020)."""

    erase_from: int = 0
    """Weights in matrices and kernels, times passes over the training split, from which on rectangles are
    erased. With less, a training cannot learn its images by heart, and has nothing to gain. 0 for always."""

    skip_easy: float = 0.0
    """Probability with which a pass over the training split leaves an example out whose loss was below the
    mean when it was last seen; those that stay count for the others (InfoBatch: Qin et al. 2024). The first
    pass is whole, and so is the last eighth of a training."""

    label_smoothing: float = 0.0
    """Share of the target probability that is spread evenly over all classes."""

    calibration_examples: int = 1024
    """Training examples on which BatchNorm statistics are re-estimated."""

    def __post_init__(self) -> None:
        for name, low in (
            ("examples", 1),
            ("batch_size", 2),  # BatchNorm needs two values to take a variance
            ("batch_doublings", 0),
            ("full_decay", 0),
            ("crop_padding", 0),
            ("erase_from", 0),
            ("calibration_examples", 2),
        ):
            _check_whole(name, getattr(self, name), low)
        if not 0 < self.learning_rate < math.inf:  # written so that NaN fails as well
            raise ValueError(f"learning_rate: expected a positive finite number, got {self.learning_rate!r}")
        for name in ("weight_decay", "clip_norm"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise ValueError(f"{name}: expected a finite number >= 0, got {value!r}")
        for name in ("momentum", "warmup", "erase", "skip_easy", "label_smoothing"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise ValueError(f"{name}: expected 0 <= {name} < 1, got {value!r}")

    @property
    def batch(self) -> int:
        """Examples per optimiser step."""
        return self.batch_of(self.examples)

    def batch_of(self, examples: int) -> int:
        """Examples per optimiser step of a training of so many by this recipe.

        They are doubled while `LEAST_STEPS` steps are left, as often as is allowed.
        """
        batch = self.batch_size
        for _ in range(self.batch_doublings):
            if examples < LEAST_STEPS * 2 * batch:
                break
            batch *= 2
        return batch

    @property
    def rate(self) -> float:
        """Largest learning rate of this training."""
        return self.learning_rate * self.batch / self.batch_size

    def decay(self, weights: int) -> float:
        """L2 penalty for a network of so many weights in matrices and kernels.

        With `weight_decay` 0.002, what is best by the validation loss after 1.2 to 1.7 M examples of
        Fashion-MNIST is at most 0.0005 with 2,000 weights, 0.0005 to 0.001 with 5,000, and 0.002 with 43,000.
        """
        share = weights / self.full_decay if self.full_decay else 1.0
        return self.weight_decay * math.sqrt(min(1.0, share))

    def erasing(self, weights: int, count: int) -> float:
        """Probability with which an image loses a rectangle.

        Args:
            weights: How many the network has in matrices and kernels.
            count: Examples in the training split.
        """
        return self.erase if weights * self.examples >= self.erase_from * count else 0.0

    @property
    def steps(self) -> int:
        """Optimiser steps: ``examples / batch`` to the nearest whole number, at least 1.

        Every batch is full (a stray last example would give BatchNorm nothing to average), so
        the examples seen are ``steps * batch``.
        """
        return max(1, round(self.examples / self.batch))


def _check_whole(name: str, value: object, low: int) -> None:
    """Raises ValueError unless ``value`` is an int of at least ``low``."""
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        raise ValueError(f"{name}: expected a whole number >= {low}, got {value!r}")
