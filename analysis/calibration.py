"""Was the prediction right? Predicted against measured loss change, by kind of edit.

    python -m analysis.calibration RUN

Measurements are set against what the parent's prices promised for an edit: the loss right after
inheritance, on the examples that it was priced on, before and after the refit, and the validation loss after
training, each less that of the parent. Prunes of units are priced as they are inherited, edits with a joint
once the layer there is refit. A learned correction leads from prediction to the last: drawn with what
children gain that only train on, which is no merit of an edit. It also counts children that were stopped,
with the loss that was expected of them; they have no dot. Spearman's rank correlation says how well the
predictions *order* edits of one kind, which is all that choosing between them needs.
"""

from __future__ import annotations

from math import ceil, floor, log10

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from msgspec import Struct
from numpy.typing import NDArray

from analysis.common import (
    CATEGORIES,
    GREY,
    JsonFlag,
    Run,
    RunFolder,
    as_array,
    less,
    open_run,
    print_json,
    run_command,
    save_figure,
    styled,
)
from analysis.ranks import spearman
from evo_topo.calibration import Isotonic
from populations.calibrating import calibration_from, lessons_of, usual_change
from populations.records import LineageError

_WIDEST = 7  # kinds of edits side by side


class Trial(Struct, frozen=True):
    """One predicted edit and what came of it.

    Attributes:
        id: The child's id.
        kind: Kind of edit.
        predicted: Predicted loss change before training.
        promised: What training was promised to add to it.
        inherited: Loss right after inheritance less the parent's loss, where it was measured.
        refit: The same once the layers behind the change are refit.
        trained: Loss after training less the parent's loss, where it was measured.
    """

    id: int
    kind: str
    predicted: float
    promised: float
    inherited: float | None
    refit: float | None
    trained: float | None


class Correlation(Struct, frozen=True):
    """Spearman's rank correlation of prediction and measurement, and the number of pairs behind it."""

    count: int
    spearman: float | None


class KindInfo(Struct, frozen=True):
    """How well the edits of one kind were predicted.

    Attributes:
        kind: The kind.
        inherited: After inheritance.
        refit: After inheritance, once the layers behind the change are refit.
        trained: After training.
        correction: From predicted to recovered loss change, as the whole run has taught it.
    """

    kind: str
    inherited: Correlation
    refit: Correlation
    trained: Correlation
    correction: Isotonic | None


class CalibrationInfo(Struct, frozen=True):
    """The numbers behind the figure.

    Attributes:
        run: Its name.
        trials: Every predicted edit.
        kinds: Correlations by kind of edit.
        usual: Loss change of children that only trained on; corrections are without it.
    """

    run: str
    trials: list[Trial]
    kinds: list[KindInfo]
    usual: float


def calibration_info(run: Run) -> CalibrationInfo:
    """Sets predictions against measurements.

    Raises:
        LineageError: When no child of the run has both a prediction and a measurement.
    """
    outcomes = {individual.id: individual.outcome for individual in run.individuals}
    trials = []
    for child in run.individuals:
        if child.parent is None or child.edit is None or child.predicted_loss_change is None:
            continue
        parent = outcomes[child.parent]
        if parent.loss is None:
            continue
        inherited = less(child.outcome.inherited_loss, parent.probe_loss)
        refit = less(child.outcome.refit_loss, parent.probe_loss)
        trained = less(child.outcome.loss, parent.loss)
        kind = str(child.edit.__struct_config__.tag).replace("_", " ")
        predicted, promised = child.predicted_loss_change, child.promised_loss_change or 0.0
        trials.append(Trial(child.id, kind, predicted, promised, inherited, refit, trained))
    if all(trial.inherited is None and trial.trained is None for trial in trials):
        raise LineageError(f"{run.folder} holds no edit with both a predicted and a measured loss change")
    lessons = lessons_of(run.individuals)
    learned, kinds = calibration_from(lessons), []
    for kind in sorted({trial.kind for trial in trials}):
        of_kind = [trial for trial in trials if trial.kind == kind]
        correction = learned.kinds.get(kind.replace(" ", "_"), learned.every)
        stages = {name: _correlate(of_kind, name) for name in ("inherited", "refit", "trained")}
        kinds.append(KindInfo(kind=kind, correction=correction, **stages))
    return CalibrationInfo(run.folder.resolve().name, trials, kinds, usual_change(lessons))


def _correlate(trials: list[Trial], measurement: str) -> Correlation:
    measured = [getattr(trial, measurement) for trial in trials]
    count = sum(value is not None for value in measured)
    added = [trial.promised if measurement == "trained" else 0.0 for trial in trials]
    predicted = [trial.predicted + promise for trial, promise in zip(trials, added, strict=True)]
    return Correlation(count, spearman(predicted, measured))


@styled
def draw_calibration(info: CalibrationInfo) -> Figure:
    """Draws a pair of panels for each kind of edit: above before training, below after it."""
    bands = ceil(len(info.kinds) / _WIDEST)
    columns = ceil(len(info.kinds) / bands)
    size = (max(3.0 * columns + 0.8, 6.5), 6.1 * bands + 0.7)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(2 * bands, columns, sharex=True, sharey=True, squeeze=False)
    changes = [
        c
        for t in info.trials
        for c in (t.predicted, t.predicted + t.promised, t.inherited, t.refit, t.trained)
        if c is not None
    ]
    for at in range(bands * columns):
        band, column = divmod(at, columns)
        pair = panels[2 * band : 2 * band + 2, column]
        if at < len(info.kinds):
            _draw_kind(pair, info, info.kinds[at], CATEGORIES[at % len(CATEGORIES)])
        else:
            for axes in pair:
                axes.set_axis_off()
    for band in range(bands):
        panels[2 * band, 0].set_ylabel("measured as inherited (hollow: refit)")
        panels[2 * band + 1, 0].set_ylabel("measured after training")
    _set_symlog(panels[0, 0], changes)
    figure.suptitle(
        f"{info.run}: predicted and measured loss change (dashed: as predicted; line: learned correction)",
        weight="bold",
        fontsize=11,
    )
    return figure


def _draw_kind(pair: NDArray[np.object_], info: CalibrationInfo, kind: KindInfo, colour: str) -> None:
    trials = [trial for trial in info.trials if trial.kind == kind.kind]
    for axes, name in zip(pair, ("inherited", "trained"), strict=True):
        axes.plot([-1e9, 0, 1e9], [-1e9, 0, 1e9], color=GREY, linewidth=1, linestyle="--")
        measured = as_array([getattr(trial, name) for trial in trials])
        promised = name == "trained"
        predicted = [trial.predicted + promised * trial.promised for trial in trials]
        axes.scatter(predicted, measured, s=18, color=colour, alpha=0.6, linewidths=0)
        if not promised:
            refit = as_array([trial.refit for trial in trials])
            axes.scatter(predicted, refit, s=18, facecolors="none", edgecolors=colour, alpha=0.8)
        if promised and kind.correction is not None:
            x = sorted({*predicted, *kind.correction.x})
            axes.plot(x, [info.usual + kind.correction(value) for value in x], color=colour, linewidth=1.2)
        text = _correlation_text(getattr(kind, name), None if promised else kind.refit)
        axes.set_title(text, fontsize=9, color=GREY)
    pair[0].annotate(
        kind.kind, (0, 1), (0, 20), "axes fraction", "offset points", color=colour, weight="bold"
    )
    pair[1].set_xlabel("predicted loss change\n(below: with promised gain)")


def _correlation_text(correlation: Correlation, refit: Correlation | None) -> str:
    known = [one for one in (correlation, refit) if one is not None and one.count]
    values = ["n/a" if one.spearman is None else f"{one.spearman:+.2f}" for one in known]
    return f"Spearman {' / '.join(values) or 'n/a'},  n = {correlation.count:,}"


def _set_symlog(axes: Axes, changes: list[float]) -> None:
    """Symmetric logarithmic axes over three decades at most, linear around zero."""
    sizes = np.abs([change for change in changes if change])
    smallest, largest = (np.quantile(sizes, 0.1), sizes.max()) if len(sizes) else (1e-3, 1e-2)
    top = floor(log10(largest))
    threshold = min(max(floor(log10(smallest)), top - 3), top - 1)
    powers = [10.0**power for power in range(threshold, top + 1)]
    ticks = powers[::-2]
    limit = 1.3 * largest
    axes.set_xscale("symlog", linthresh=powers[0])
    axes.set_yscale("symlog", linthresh=powers[0])
    axes.set(xlim=(-limit, limit), ylim=(-limit, limit))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(FixedLocator([0, *ticks, *[-tick for tick in ticks]]))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def main(run: RunFolder, json: JsonFlag = False) -> None:
    """Draws predicted against measured loss change, by kind of edit."""
    info = calibration_info(open_run(run))
    if json:
        print_json(info)
    else:
        save_figure(draw_calibration(info), run, "calibration")


if __name__ == "__main__":
    run_command(main, "python -m analysis.calibration")
