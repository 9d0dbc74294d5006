"""One step of a training: augment, forward, backward, update; on a GPU replayed from a CUDA graph."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from evo_topo.augmentation import shift_and_flip
from evo_topo.bfloat16 import has_fast_bfloat16
from evo_topo.binary import clip_latent, latent_weights
from evo_topo.distillation import Teaching
from evo_topo.recipe import Recipe
from evo_topo.task import Task

EAGER_STEPS = 3
"""Steps before a capture: they allocate what the optimiser and the libraries keep."""


class Step:
    """One step, launched operation by operation.

    Args:
        model: Network in training mode, on the device of the task.
        task: What to learn; its training split is used.
        recipe: How to train.
        teaching: A teacher's answers to learn from beside the targets.
    """

    def __init__(self, model: nn.Module, task: Task, recipe: Recipe, teaching: Teaching | None) -> None:
        self.model, self.task, self.recipe, self.teaching = model, task, recipe, teaching
        self.device = task.train.inputs.device
        self._rate: Tensor | None = None
        if self.device.type == "cuda":  # where a number would be part of what is captured
            self._rate = torch.tensor(recipe.learning_rate, device=self.device)
        self.optimiser = _optimiser(model, recipe, self._rate)
        self._latent = latent_weights(model)

    def set_rate(self, rate: float) -> None:
        """Sets the learning rate of the next step."""
        if self._rate is not None:
            self._rate.fill_(rate)
            return
        for group in self.optimiser.param_groups:
            group["lr"] = rate

    def __call__(self, index: Tensor, moves: Tensor | None) -> Tensor:
        """Trains on one batch.

        Args:
            index: Numbers of its training examples, int64 (batch,).
            moves: How each is moved, (batch, 3), from `draw_moves`; None for not at all.

        Returns:
            Its loss (), on the device.
        """
        recipe, device = self.recipe, self.device
        inputs, targets = self.task.train.inputs[index], self.task.train.targets[index]
        if moves is not None:
            inputs = shift_and_flip(inputs, moves, recipe.crop_padding)
        # no cache of casts: it would keep what belongs to a capture
        with torch.autocast(
            device.type, torch.bfloat16, enabled=has_fast_bfloat16(device), cache_enabled=False
        ):
            logits = self.model(self.task.normalise(inputs)).float()
        if self.teaching is None:
            loss = functional.cross_entropy(logits, targets, label_smoothing=recipe.label_smoothing)
        else:
            loss = self.teaching.loss(logits, targets, index, recipe.label_smoothing)
        self.optimiser.zero_grad()
        torch.autograd.backward(loss)
        self.optimiser.step()
        clip_latent(self._latent)
        return loss.detach()


class _Recording(NamedTuple):
    """A captured step, and the tensors that it reads and writes, which stay where they are."""

    graph: torch.cuda.CUDAGraph
    batch: Tensor
    moves: Tensor | None
    loss: Tensor


class CapturedStep:
    """The same step, captured as a CUDA graph: one launch replays all of its kernels.

    Small networks leave a GPU waiting for launches. A step that cannot be captured is launched operation by
    operation, as before.

    Args:
        step: The step, on a GPU.
    """

    def __init__(self, step: Step) -> None:
        self.step = step
        self._stream = torch.cuda.Stream(step.device)  # type: ignore[no-untyped-call]
        self._launches = 0
        self._recording: _Recording | None = None

    def __call__(self, index: Tensor, moves: Tensor | None) -> Tensor:
        """Trains on one batch; arguments and result as for `Step`."""
        with torch.cuda.device(self.step.device):
            if self._recording is None and self._launches == EAGER_STEPS:
                self._recording = self._captured(index, moves)
            if self._recording is None:
                self._launches += 1
                return self._launched(index, moves)
            graph, fixed_index, fixed_moves, loss = self._recording
            fixed_index.copy_(index)
            if moves is not None and fixed_moves is not None:
                fixed_moves.copy_(moves)
            graph.replay()
            return loss.clone()

    def _launched(self, index: Tensor, moves: Tensor | None) -> Tensor:
        """The step on a stream beside the current one, as a capture wants the steps before it."""
        current = torch.cuda.current_stream()
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            loss = self.step(index, moves)
        current.wait_stream(self._stream)
        return loss

    def _captured(self, index: Tensor, moves: Tensor | None) -> _Recording | None:
        """Captures the step, which runs nothing; None where that is impossible."""
        fixed_index, fixed_moves = index.clone(), None if moves is None else moves.clone()
        self.step.optimiser.zero_grad()  # so that gradients are allocated where the graph finds them
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                loss = self.step(fixed_index, fixed_moves)
        except RuntimeError:
            return None
        return _Recording(graph, fixed_index, fixed_moves, loss)


def _optimiser(model: nn.Module, recipe: Recipe, rate: Tensor | None) -> torch.optim.SGD:
    """SGD that decays kernels and matrices, and neither biases nor BatchNorm parameters."""
    learned = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in learned if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in learned if p.ndim <= 1], "weight_decay": 0.0},
    ]
    nesterov = recipe.momentum > 0  # torch refuses the combination with zero
    first = recipe.learning_rate if rate is None else rate
    return torch.optim.SGD(groups, first, recipe.momentum, nesterov=nesterov, fused=True)
