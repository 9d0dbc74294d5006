"""One step of a training: augment, forward, backward, update."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from evo_topo.augmentation import erase, shift_and_flip
from evo_topo.batches import Batches
from evo_topo.bfloat16 import Bfloat16Copies, Float32Layers, has_fast_bfloat16
from evo_topo.binary import clip_latent, latent_weights
from evo_topo.descent import Descent
from evo_topo.distillation import Teaching
from evo_topo.layouts import keep_layouts
from evo_topo.recipe import Recipe
from evo_topo.task import Task


class Step:
    """One step, launched operation by operation.

    Each call trains on the next of the batches that were loaded before. While it is open, layers may hold
    copies of their weights.

    Args:
        model: Network in training mode, on the device of the task.
        task: What to learn; its training split is used.
        recipe: How to train.
        teaching: A teacher's answers to learn from beside the targets.

    Attributes:
        rows: Steps whose batches are loaded at once.
        set_rate: Sets the learning rate of the next step.
        last_losses: Loss of each training example when it was last seen, in nats, (N,), NaN before; None
            where the recipe leaves none out.
    """

    rows = 1

    def __init__(self, model: nn.Module, task: Task, recipe: Recipe, teaching: Teaching | None) -> None:
        self.model, self.task, self.recipe, self.teaching = model, task, recipe, teaching
        self.device = task.train.inputs.device
        self.last_losses: Tensor | None = None
        if recipe.skip_easy:
            self.last_losses = torch.full((len(task.train.targets),), torch.nan, device=self.device)
        self._descent = Descent(model, recipe, self.device)
        self.set_rate = self._descent.set_rate
        self._latent = latent_weights(model)
        self._layouts = keep_layouts(model) if self.device.type == "cpu" else []
        is_low = has_fast_bfloat16(self.device)
        self._copies = Bfloat16Copies(model) if is_low else None
        self._exceptions = Float32Layers(model) if is_low else None

    def load(self, batches: Batches) -> None:
        """Gives it the batches of its next steps."""
        self._batches, self._row = batches, 0

    def __call__(self) -> Tensor:
        """Trains on the next batch; returns its loss (), on the device."""
        (index, *rest), row = self._batches, self._row
        self._row += 1
        return self.learn(index[row], *(None if part is None else part[row] for part in rest))

    def learn(
        self, index: Tensor, moves: Tensor | None, weights: Tensor | None, rectangles: Tensor | None
    ) -> Tensor:
        """Trains on one batch.

        Args:
            index: Numbers of its training examples, int64 (batch,).
            moves: How each is moved, (batch, 3), from `draw_moves`; None for not at all.
            weights: How much each counts, (batch,); None for alike.
            rectangles: What each loses, (batch, 4), from `draw_rectangles`; None for nothing.

        Returns:
            Its loss (), on the device.
        """
        recipe, device = self.recipe, self.device
        inputs, targets = self.task.train.inputs[index], self.task.train.targets[index]
        self.forget_gradients()
        if moves is not None:
            inputs = shift_and_flip(inputs, moves, recipe.crop_padding)
        if rectangles is not None:
            inputs = erase(inputs, rectangles)
        # no cache of casts: it would keep what belongs to a capture
        with torch.autocast(
            device.type, torch.bfloat16, enabled=has_fast_bfloat16(device), cache_enabled=False
        ):
            logits = self.model(self.task.normalise(inputs)).float()
        smoothing = recipe.label_smoothing
        if self.teaching is None:
            losses = functional.cross_entropy(logits, targets, reduction="none", label_smoothing=smoothing)
        else:
            losses = self.teaching.losses(logits, targets, index, smoothing)
        if self.last_losses is not None:
            self.last_losses.index_copy_(0, index, losses.detach())
        loss = (losses if weights is None else weights * losses).mean()
        torch.autograd.backward(loss)
        if self._copies:
            self._copies.hand_over()
        if recipe.clip_norm:
            self._clip(recipe.clip_norm)
        self._descent.step()
        clip_latent(self._latent)
        return loss.detach()

    def _clip(self, limit: float) -> None:
        """Cuts the gradient to a length; a seventh of the time that torch's norms of each parameter take."""
        length = torch.cat([p.grad.flatten() for p in self._descent.parameters if p.grad is not None]).norm()
        if self.device.type != "cpu" or length > limit:  # a GPU would have to be waited for
            nn.utils.clip_grads_with_norm_(self._descent.parameters, limit, length)

    def forget_gradients(self) -> None:
        """Lets the next step allocate its gradients anew."""
        self._descent.forget_gradients()
        if self._copies:
            self._copies.refresh()

    def close(self) -> None:
        """Gives the layers their weights back, and their ways of computing."""
        for handle in self._layouts:
            handle.remove()
        for changed in (self._copies, self._exceptions):
            if changed:
                changed.close()
