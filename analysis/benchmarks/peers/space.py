"""The space that Optuna searches: depth, width, kernel, stride and kind of convolution, by stage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from evo_topo.genome import Genome
from evo_topo.ops import Activation, Conv, Norm, Shape
from populations.founders import Sketch

if TYPE_CHECKING:
    from optuna.trial import Trial

STAGES, MOST_LAYERS, WIDEST = 3, 3, 64
"""The founders lie within: at most three stages of two layers, 64 channels."""


class Stage(NamedTuple):
    """Layers of one width; no layers, no stage.

    Attributes:
        layers: How many.
        width: Channels of each.
        kernel: Extent of the window, 3 or 5.
        stride: Of one of the layers, 1 or 2.
        late: Whether that is the last layer rather than the first.
        separable: Whether a layer is a depthwise and a 1 x 1 convolution (MobileNet, Howard et al. 2017).
    """

    layers: int
    width: int
    kernel: int = 3
    stride: int = 1
    late: bool = False
    separable: bool = False


def suggest_stages(trial: Trial) -> list[Stage]:
    """The stages of a trial.

    Every trial has the same parameters: NSGA-II crosses only those that all trials share, and draws the
    others at random.
    """
    stages = []
    for number in range(STAGES):
        name = f"stage{number}"
        stage = Stage(
            layers=trial.suggest_int(f"{name}_layers", 0 if number else 1, MOST_LAYERS),
            width=trial.suggest_int(f"{name}_width", 2, WIDEST, log=True),
            kernel=trial.suggest_categorical(f"{name}_kernel", [3, 5]),
            stride=trial.suggest_categorical(f"{name}_stride", [1, 2]),
            late=trial.suggest_categorical(f"{name}_late", [False, True]),
            separable=trial.suggest_categorical(f"{name}_separable", [False, True]),
        )
        stages.append(stage)
    return stages


def as_parameters(stages: Sequence[Stage]) -> dict[str, Any]:
    """What `suggest_stages` has to be given to suggest these stages."""
    return {
        f"stage{n}_{key}": value for n, stage in enumerate(stages) for key, value in stage._asdict().items()
    }


def staged_net(input_shape: Shape, num_classes: int, stages: Sequence[Stage]) -> Genome:
    """A chain of convolutions with BatchNorm and ReLU, and a linear layer that reads the whole last map.

    The very first layer is never separable: a depthwise filter of the raw pixels has nothing to choose from.
    """
    sketch = Sketch(input_shape)
    last, width = "input0", input_shape[0]
    for stage in stages:
        halving = stage.layers - 1 if stage.late else 0
        for layer in range(stage.layers):
            stride = stage.stride if layer == halving else 1
            if stage.separable and last != "input0":
                last = _depthwise(sketch, width, last, stage.kernel, stride)
                last = sketch.conv_norm_relu(stage.width, last, kernel=1)
            else:
                last = sketch.conv_norm_relu(stage.width, last, stage.kernel, stride)
            width = stage.width
    return sketch.classify(num_classes, pooled=False)


def _depthwise(sketch: Sketch, width: int, source: str, kernel: int, stride: int) -> str:
    kernels, strides, paddings = [(size,) * sketch.dims for size in (kernel, stride, kernel // 2)]
    sketch.add("conv", Conv(width, kernels, strides, paddings, groups=width), source)
    sketch.add("norm", Norm())
    return sketch.add("relu", Activation("relu"))


FOUNDERS: dict[str, tuple[Stage, ...]] = {
    "digits": (Stage(2, 32), Stage(2, 64, stride=2), Stage(0, 64)),
    "fashion-mnist": (Stage(2, 16, stride=2), Stage(2, 32, stride=2), Stage(2, 64, stride=2)),
}
"""The presets' founders as stages: what the search is told to try first."""
