"""Operator edits that take a layer apart into smaller linear factors."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Annotated, Literal, Self, get_args

import msgspec
from msgspec import Meta

from evo_topo.cost import node_macs
from evo_topo.edits.base import Edit, EditError, RandomSource, shuffled
from evo_topo.edits.surgery import check_plain, child_of, fitting, fresh_names, node_of, substituted
from evo_topo.genome import Genome, Node
from evo_topo.ops import Concat, Conv, Layer, Linear

Form = Literal["reduce", "expand", "separable", "fire"]


class Factorise(Edit, frozen=True, tag="factorise"):
    """Replaces a layer by linear factors whose product is the nearest to it that they can have.

    Forms, for a convolution with window k and without groups:

    - ``reduce``: 1x1 to `rank` channels, then k. The only form for a linear layer.
    - ``expand``: k to `rank` channels, then 1x1.
    - ``separable``: depthwise k, then 1x1 (Howard et al. 2017); the rank is 1 per input channel.
    - ``fire``: 1x1 to `rank` channels, then 1x1 for the first half of the outputs and k for the
      others, side by side (Iandola et al. 2016, without the activations between).

    Sparse and binary layers are refused.

    Attributes:
        layer: Name of the Conv or Linear.
        form: What it is replaced by.
        rank: Channels between the factors; 1 where the form is ``separable``.
    """

    layer: str
    form: Form
    rank: Annotated[int, Meta(ge=1)] = 1

    def apply(self, genome: Genome) -> Genome:
        self._check(genome)
        return child_of(substituted(genome, self.layer, self.factors(genome)), self)

    def joint(self, genome: Genome) -> tuple[str, str]:
        self.apply(genome)
        return self.layer, self.factors(genome)[-1].name

    def factors(self, genome: Genome) -> list[Node]:
        """The child's nodes in the place of the layer, in order."""
        node = genome.by_name[self.layer]
        names = fresh_names(genome, "reduce", "window", "expand", "concat")
        source, op, rank = node.inputs[0], node.op, self.rank
        if isinstance(op, Linear):
            return [
                Node(names["reduce"], Linear(rank, bias=False), (source,)),
                Node(names["expand"], op, (names["reduce"],)),
            ]
        assert isinstance(op, Conv)
        width, point = op.out_channels, (1,) * len(op.kernel)

        def window(reads: str, out: int, groups: int = 1, bias: bool = False) -> Node:
            conv = msgspec.structs.replace(op, out_channels=out, groups=groups, bias=bias)
            return Node(names["window"], conv, (reads,))

        if self.form == "reduce":
            first = Node(names["reduce"], Conv(rank, point), (source,))
            return [first, window(first.name, width, bias=op.bias)]
        if self.form in ("expand", "separable"):
            channels = genome.shapes[source][0]
            is_separable = self.form == "separable"
            first = window(source, *((channels, channels) if is_separable else (rank, 1)))
            return [first, Node(names["expand"], Conv(width, point, bias=op.bias), (first.name,))]
        first, half = Node(names["reduce"], Conv(rank, point), (source,)), width // 2
        expand = Node(names["expand"], Conv(half, point, op.stride, bias=op.bias), (first.name,))
        others = window(first.name, width - half, bias=op.bias)
        return [first, expand, others, Node(names["concat"], Concat(), (expand.name, others.name))]

    def _check(self, genome: Genome) -> None:
        """Refuses layers that have no such factors."""
        node = node_of(genome, self.layer)
        op = node.op
        if not isinstance(op, Layer) or (isinstance(op, Conv) and op.groups > 1):
            raise EditError(f"{self.layer!r} is no Linear and no Conv without groups: it has no factors")
        check_plain(node)
        if isinstance(op, Linear) and self.form != "reduce":
            raise EditError(f"{self.layer!r} is a Linear: its form must be 'reduce', not {self.form!r}")
        if isinstance(op, Conv) and self.form in ("separable", "fire"):
            if prod(op.kernel) == 1:
                raise EditError(f"{self.layer!r} has one tap: its form must be 'reduce' or 'expand'")
            if self.form == "fire" and not (op.out_channels > 1 and _is_centred(op)):
                raise EditError(
                    f"{self.layer!r} cannot become a fire module: that needs two channels or more, "
                    "odd extents, and half of each as padding"
                )
        largest = _largest_rank(genome, node, self.form)
        if not 1 <= self.rank <= largest:
            raise EditError(f"the rank of {self.layer!r} as {self.form!r} is 1 to {largest}, not {self.rank}")

    def varied(self, genome: Genome, rng: RandomSource) -> Self:
        """Up to twice the rank of the site, which is a quarter of the largest."""
        rank = 1 + int(rng.random() * _largest_rank(genome, genome.by_name[self.layer], self.form) / 2)
        edit = msgspec.structs.replace(self, rank=rank)
        return edit if edit.is_legal(genome) else self

    def is_legal(self, genome: Genome) -> bool:
        """Whether it applies and saves operations."""
        try:
            self._check(genome)
            factors = self.factors(genome)
            shapes = fitting(genome, self.layer, factors)
        except EditError:
            return False
        macs = sum([n.op.num_macs(tuple([shapes[i] for i in n.inputs]), shapes[n.name]) for n in factors])
        return macs < node_macs(genome)[self.layer]

    @classmethod
    def candidates(cls, genome: Genome) -> Iterator[Self]:
        """Every form of every layer, at a quarter of the largest rank."""
        for node in genome.nodes:
            if isinstance(node.op, Layer):
                for form in get_args(Form):
                    yield cls(node.name, form, max(1, _largest_rank(genome, node, form) // 4))

    @classmethod
    def drawn(cls, genome: Genome, rng: RandomSource) -> Self | None:
        """A random one that saves operations."""
        sites = shuffled(list(cls.candidates(genome)), rng)
        return next((site.varied(genome, rng) for site in sites if site.is_legal(genome)), None)

    def describe(self) -> str:
        rank = "" if self.form == "separable" else f", rank {self.rank}"
        return f"factorise {self.layer}: {self.form}{rank}"


def _largest_rank(genome: Genome, node: Node, form: Form) -> int:
    """The rank at which the factors of a layer can be exact."""
    if form == "separable":
        return 1
    channels, out = genome.shapes[node.inputs[0]][0], genome.shapes[node.name][0]
    taps = prod(node.op.kernel) if isinstance(node.op, Conv) else 1
    if form == "expand":
        return min(out, channels * taps)
    # of a fire module, half of the outputs have the middle tap alone
    rows = out // 2 + (out - out // 2) * taps if form == "fire" else out * taps
    return min(channels, rows)


def _is_centred(op: Conv) -> bool:
    """Whether the middle tap of a window reads the pixel that a 1x1 window would."""
    rows = zip(op.kernel, op.padding, op.dilation, strict=True)
    return all(k % 2 and p == k // 2 * d for k, p, d in rows)
