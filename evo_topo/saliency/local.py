"""Prices of local edits: OBD on many examples, corrected by what comes true on some of them.

The quadratic form misses what is far from quadratic, most of all at early layers, where a change that spoils
everything behind it may look cheap. Since all activations of the parent are there, the loss of a local edit
on a few examples takes no more than the layers behind its joint; how far it is from what OBD says of the same
examples tells how far OBD is from the truth on the others.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from evo_topo.edits import AnyEdit
from evo_topo.genome import Genome
from evo_topo.inheritance import Probe, inherit_some
from evo_topo.ops import is_plain
from evo_topo.saliency.behind import Behind
from evo_topo.saliency.changes import (
    Response,
    Values,
    activations,
    along,
    in_common,
    nodes_towards,
    run_nodes,
)
from evo_topo.saliency.least_squares import fit_layer, has_free_mean
from evo_topo.units import mixes_units


class LocalChange:
    """The change that a local edit makes at its joint.

    Args:
        model: The parent's network.
        genome: The parent's genome.
        edit: A local edit, which has a joint.
        probe: Examples that say which connections a layer keeps, where that is asked.

    Attributes:
        joint: The parent's node whose value changes.
    """

    def __init__(self, model: nn.Module, genome: Genome, edit: AnyEdit, probe: Probe | None = None) -> None:
        joint = edit.joint(genome)
        assert joint is not None
        self.joint, self._after = joint
        child = edit.apply(genome)
        self._nodes = nodes_towards(child, [self._after], in_common(genome, child))
        self._modules = inherit_some(model, genome, edit, child, self._nodes, probe)
        self._has_free_mean = has_free_mean(child, child.by_name[self._after])
        self._shift: Tensor | None = None

    @torch.no_grad()
    def refit(self, values: Values) -> None:
        """Fits the layer that makes the new value to the old one by least squares, as children are refit.

        A Norm behind it, which a child re-estimates, takes out what is left of the difference of the means.

        Args:
            values: Every activation of the parent.
        """
        if not self._nodes or not mixes_units(self._nodes[-1]) or not is_plain(self._nodes[-1].op):
            return
        *others, last = self._nodes
        read, wanted = run_nodes(others, self._modules, values)[last.inputs[0]], values[self.joint]
        layer, rows = self._modules.get_submodule(last.name), range(wanted.shape[1])
        fit_layer(layer, read, wanted, rows, self._has_free_mean, torch.Generator().manual_seed(0))
        if self._has_free_mean and layer.bias is None:
            apart = wanted - self.value(values)
            self._shift = apart.mean([0, *range(2, apart.dim())], keepdim=True)

    @torch.no_grad()
    def value(self, values: Values) -> Tensor:
        """The new value of the joint, (examples, ...)."""
        value = run_nodes(self._nodes, self._modules, values)[self._after]
        return value if self._shift is None else value + self._shift


class LocalPrices:
    """Collects, batch by batch, what local edits are predicted to do to the loss and what they do.

    Args:
        model: The parent's network, in evaluation mode when examples are added.
        genome: The parent's genome.
        edits: Local edits.
        seen: Examples that say which connections a layer keeps, where that is asked.
        measured: The first so many examples are measured, too.
        refit: Whether what makes the new value at a joint is refit to the old one on `seen`.
    """

    def __init__(
        self,
        model: nn.Module,
        genome: Genome,
        edits: Iterable[AnyEdit],
        seen: Probe,
        measured: int,
        refit: bool = False,
    ) -> None:
        self._end, self._unmeasured = genome.nodes[-1].name, measured
        changes = {edit: LocalChange(model, genome, edit, seen) for edit in edits}
        if refit and changes:
            values = activations(model, genome, seen.inputs)
            for change in changes.values():
                change.refit(values)
        self.joints: Collection[str] = dict.fromkeys(change.joint for change in changes.values())
        self._changes = {  # those of one joint together
            joint: {edit: change for edit, change in changes.items() if change.joint == joint}
            for joint in self.joints
        }
        self._behind = Behind(model, genome)
        self._predicted: list[Tensor] = []  # (examples, edits) each
        self._measured: list[Tensor] = []

    @torch.no_grad()
    def add(self, values: Values, responses: Sequence[Response], labels: Tensor) -> None:
        """Adds a batch.

        Args:
            values: Every activation of the parent.
            responses: Derivatives for the seeds of `loss_seeds`.
            labels: Classes (examples,).
        """
        if not self._changes:
            return
        few = min(self._unmeasured, len(labels))
        self._unmeasured -= few
        first, targets = {name: value[:few] for name, value in values.items()}, labels[:few]
        before = _losses(first[self._end], targets)
        predicted, measured = [], []
        for joint, changes in self._changes.items():
            after = [change.value(values) for change in changes.values()]
            for value in after:
                slope, *curves = along(responses, [(joint, value - values[joint])])
                predicted.append(slope.double() + sum(0.5 * curve.double().square() for curve in curves))
            if few:
                logits = self._behind.logits(joint, first, torch.cat([value[:few] for value in after]))
                measured += [_losses(part, targets) - before for part in torch.split(logits, few)]
        self._predicted.append(torch.stack(predicted, 1))
        self._measured += [torch.stack(measured, 1)] if few else []

    @property
    def is_measured(self) -> bool:
        """Whether predictions are corrected."""
        return bool(self._measured)

    def found(self) -> dict[AnyEdit, float]:
        """Predicted change of the mean loss by each edit."""
        if not self._changes:
            return {}
        predicted = torch.cat(self._predicted)
        means = corrected(predicted, torch.cat(self._measured)) if self._measured else predicted.mean(0)
        edits = [edit for changes in self._changes.values() for edit in changes]
        return dict(zip(edits, means.tolist(), strict=True))


def corrected(predicted: Tensor, measured: Tensor) -> Tensor:
    """Regression estimator of the mean of something that is known of some examples only.

    ``m + b (q_all - q_some)`` with the slope ``b`` of the measured by the predicted (Cochran 1977, sec. 7.3),
    kept from 0 to 1: where predictions are right it is as good as measuring all examples, where they say
    nothing, as measuring some. From some tens of examples, a larger slope would be noise.

    Args:
        predicted: Of all examples, (examples, columns).
        measured: Of the first of them, (some, columns).

    Returns:
        Estimated means of the measured over all examples, (columns,).
    """
    some = predicted[: len(measured)]
    apart, wanted = some - some.mean(0), measured - measured.mean(0)
    slope = (apart * wanted).sum(0) / apart.square().sum(0).clamp(min=torch.finfo(apart.dtype).tiny)
    return measured.mean(0) + slope.clamp(0, 1) * (predicted.mean(0) - some.mean(0))


def _losses(logits: Tensor, labels: Tensor) -> Tensor:
    return cross_entropy(logits.double(), labels, reduction="none")
