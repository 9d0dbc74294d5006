"""Steps of a training for a GPU, which find their batches in tables and are replayed from a CUDA graph."""

from functools import partial

import torch
from torch import Tensor, nn

from evo_topo.batches import Batches
from evo_topo.distillation import Teaching
from evo_topo.recipe import Recipe
from evo_topo.stepping import Step
from evo_topo.task import Task

EAGER_STEPS = 3
"""Steps before a capture: they allocate what the optimiser and the libraries keep."""
TABLE_ROWS = 512
"""Steps whose batches are drawn and handed to a GPU at once."""


def stepper(model: nn.Module, task: Task, recipe: Recipe, teaching: Teaching | None) -> "Step | CapturedStep":
    """The step of a training as it is fastest on the device of the task; arguments as for `Step`."""
    step = Step(model, task, recipe, teaching)
    return CapturedStep(step) if step.device.type == "cuda" else step


class TabledStep:
    """The same step, which reads its batches from tables on the device and writes its losses into another.

    It finds its place in them by itself, so all steps launch the same operations on the same memory.

    Args:
        step: The step.

    Attributes:
        rows: Steps whose batches are loaded at once.
    """

    rows = TABLE_ROWS

    def __init__(self, step: Step) -> None:
        recipe, integers = step.recipe, partial(torch.zeros, dtype=torch.int64, device=step.device)
        self.step = step
        self.set_rate, self.close, self.last_losses = step.set_rate, step.close, step.last_losses
        self._index = integers((self.rows, recipe.batch))
        is_moved = recipe.crop_padding or recipe.flip
        moves = integers((self.rows, recipe.batch, 3)) if is_moved else None
        weights = torch.ones(self._index.shape, device=step.device) if recipe.skip_easy else None
        shape = (self.rows, recipe.batch, 4)
        rectangles = torch.zeros(shape, device=step.device) if recipe.erase else None
        self._rest = moves, weights, rectangles
        self._losses = torch.zeros(recipe.steps, device=step.device)
        self._place = integers(2)  # row of the batches, row of the losses
        self._done = 0

    def load(self, batches: Batches) -> None:
        """Gives it the batches of its next steps."""
        for table, part in zip((self._index, *self._rest), batches, strict=True):
            if table is not None and part is not None:
                table[: len(part)] = part
        self._place[0] = 0

    def __call__(self) -> Tensor:
        """Trains on the next batch; returns its loss (), on the device."""
        self._run()
        self._done += 1
        return self._losses[self._done - 1]

    def _run(self) -> None:
        self._learn()

    def _learn(self) -> None:
        row, number = self._place[:1], self._place[1:]
        rest = (None if table is None else table.index_select(0, row)[0] for table in self._rest)
        loss = self.step.learn(self._index.index_select(0, row)[0], *rest)
        self._losses.index_copy_(0, number, loss.view(1))
        self._place += 1


class CapturedStep(TabledStep):
    """The same step, captured as a CUDA graph: one launch replays all of its kernels.

    Small networks leave a GPU waiting for launches. A step that cannot be captured is launched operation by
    operation, as before.

    Args:
        step: The step, on a GPU.
    """

    def __init__(self, step: Step) -> None:
        super().__init__(step)
        self._stream = torch.cuda.Stream(step.device)  # type: ignore[no-untyped-call]
        self._graph: torch.cuda.CUDAGraph | None = None

    def _run(self) -> None:
        with torch.cuda.device(self.step.device):
            if self._done == EAGER_STEPS:
                self._graph = self._captured()
            if self._graph is None:
                self._launch()
            else:
                self._graph.replay()

    def _launch(self) -> None:
        """The step on a stream beside the current one, as a capture wants the steps before it."""
        current = torch.cuda.current_stream()
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            self._learn()
        current.wait_stream(self._stream)

    def _captured(self) -> torch.cuda.CUDAGraph | None:
        """Captures the step, which runs nothing; None where that is impossible."""
        self.step.forget_gradients()  # so that gradients are allocated where the graph finds them
        generator = torch.cuda.default_generators[torch.cuda.current_device()]
        kept, graph = generator.clone_state(), torch.cuda.CUDAGraph()
        try:
            # on a stream of this device: torch's own belongs to the first that it ever captured on
            with torch.cuda.graph(graph, stream=self._stream):
                self._learn()
        except RuntimeError:
            generator.graphsafe_set_state(kept)  # its own state still takes itself for captured
            return None
        return graph
