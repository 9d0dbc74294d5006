"""The examples from which new parameters and statistics are computed."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Probe(NamedTuple):
    """A batch of examples.

    Attributes:
        inputs: Network inputs (examples, *input_shape), as the network reads them.
        targets: Class of each example (examples,).
    """

    inputs: Tensor
    targets: Tensor

    def first(self, examples: int) -> Probe:
        """The first of them."""
        return Probe(self.inputs[:examples], self.targets[:examples])
