"""A training that runs step by step, and can be put back to an earlier step.

    training = Training(task, model, arrays, encoding, recipe, seed, "cpu")
    with training.running():
        for _ in range(training.n_steps):
            training.advance()

`engine.training.trainer` runs one from start to end; replay (`engine.attribution.replay`) walks
back through it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from engine.attribution.replay.training import State
from engine.attribution.replay.updates import AdamW, Sgd, Update, needs_moments
from engine.data.places.decoded import FEWEST_AHEAD, read_ahead
from engine.models.calling import DRAWS_FROM, WEIGHTS
from engine.models.parts import freeze_modes
from engine.models.ready import in_fast_layout
from engine.store import fingerprint_of
from engine.store.errors import DataError
from engine.store.spec import AlgorithmSpec
from engine.tasks import Task
from engine.training.averaging import Average
from engine.training.frozen import Kept, keep_frozen
from engine.training.micro_batches import InMicroBatches
from engine.training.optimizer import learning_rate, make_optimizer
from engine.training.outputs import read_batch, to_device

if TYPE_CHECKING:
    from engine.attribution.trak.plan import Batch


class Training:
    """One training of a model, in place.

    Args:
        task: How rows become batches and what the loss is.
        model: With its initial weights.
        arrays: Raw arrays of the training set, `[n, ...]` each.
        encoding: The task's encoding.
        recipe: Optimizer, schedule, epochs, augmentations.
        seed: Fixes the order of examples, the augmentations and any dropout.
        device: `cpu` or `cuda`.
        subset: Row numbers to train on; None takes all. If they are fewer than a batch, they make
            one smaller batch.
        weights: Of each example in the loss of its batches, `[n]`: the loss is Σ w loss / Σ w.
            None: the mean.

    Raises:
        DataError: There are fewer than two examples.
    """

    def __init__(
        self,
        task: Task,
        model: nn.Module,
        arrays: Mapping[str, np.ndarray],
        encoding: dict[str, Any],
        recipe: AlgorithmSpec,
        seed: int,
        device: str,
        subset: np.ndarray | None = None,
        weights: np.ndarray | None = None,
    ) -> None:
        self.n_examples = min(len(array) for array in arrays.values())
        rows = np.arange(self.n_examples) if subset is None else np.asarray(subset)
        if len(rows) < 2:
            raise DataError(f"Training needs 2 or more examples, not {len(rows)}.")
        self._chosen_rows = np.zeros(self.n_examples, bool)
        self._chosen_rows[rows] = True
        self._batch_size = min(recipe.batch_size, len(rows))
        self.steps_per_epoch = len(rows) // self._batch_size
        self.n_steps = recipe.epochs * self.steps_per_epoch
        self.step = 0
        self._last_read = -1  # the step whose batch was read last
        self.most_norm = recipe.gradient_clipping

        self._task, self._arrays, self._encoding = task, arrays, encoding
        self._recipe, self._seed, self._device = recipe, seed, device
        self._weights = None if weights is None else torch.from_numpy(np.array(weights))
        self.model = to_device(model, device).train()
        if recipe.train != "all":
            freeze_modes(self.model)
        self._modes = [(module, module.training) for module in self.model.modules()]
        self._optimizer = make_optimizer(self.model, recipe)
        self.trained: Sequence[nn.Parameter] = [
            p for p in self.model.parameters() if p.requires_grad
        ]
        self._average = Average(self.model, recipe.averaging) if recipe.averaging else None
        size = recipe.micro_batch_size
        self._seen = self.model if size is None else InMicroBatches(self.model, size)
        self._kept: Kept | None = None
        order = _generator("order", seed)
        self._orders = [order.get_state()]  # before each epoch's draw, as far as they are known
        self._shuffled = (-1, np.empty(0, np.int64))  # an epoch and the order of its rows
        self._augmentation = _generator("augmentation", seed)
        self._last_random: tuple[Tensor, ...] = ()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Seed the generators; everything else is done inside, and the caller's are put back."""
        recipe = self._recipe
        with _reproducible(self._seed, self._device):
            keeps = not recipe.augmentations and recipe.micro_batch_size is None
            if recipe.train != "all" and keeps:
                architecture = f"{recipe.architecture} {recipe.architecture_options}"
                with torch.random.fork_rng(devices=[]):  # dropout of the head draws, too
                    self._kept = keep_frozen(
                        self._task,
                        self.model,
                        self._arrays,
                        self._encoding,
                        self._device,
                        architecture,
                    )
            yield

    def rows(self) -> np.ndarray:
        """Row numbers of the next step's batch."""
        epoch, number = divmod(self.step, self.steps_per_epoch)
        first = number * self._batch_size
        return self._order(epoch)[first : first + self._batch_size]

    def losses(self, weights: Tensor | None = None) -> Tensor:
        """Losses `[batch]` of the next step's examples, in train mode.

        Args:
            weights: Of the examples, for a loss in which they meet; None: all 1.
        """
        return self._losses(self.model, weights)

    def _losses(self, model: nn.Module, weights: Tensor | None) -> Tensor:
        rows = self.rows()
        batch = {**self._batch(rows), DRAWS_FROM: self._draws_from(len(rows))}
        if weights is not None:
            batch[WEIGHTS] = weights
        kept = self._kept
        with kept.standing_for(rows) if kept is not None else contextlib.nullcontext():
            return self._task.loss(model, batch, self._recipe.label_smoothing)

    def advance(self) -> Tensor:
        """Do the next step; return its loss."""
        self._set_rate()
        loss = self._mean_loss()
        self._optimizer.zero_grad()
        torch.autograd.backward(loss)
        if self.most_norm is not None:
            nn.utils.clip_grad_norm_(self.trained, self.most_norm)
        self._optimizer.step()
        self.step += 1
        if self._average is not None:
            self._average.update(self.model, self.step)
        return loss.detach()

    def conclude(self) -> nn.Module:
        """The trained model in eval mode, after the last step."""
        if self._average is not None:
            self._average.put_into(self.model)
        return self.model.eval()

    def updates(self) -> list[Update]:
        """The next step's update of each trained parameter, from the optimizer itself."""
        self._set_rate()
        group_of = {id(p): group for group in self._optimizer.param_groups for p in group["params"]}
        return [self._update(parameter, group_of[id(parameter)]) for parameter in self.trained]

    def state(self, whole: bool) -> State:
        """Copy the state; without `whole` only what derivatives of the next step need."""
        buffers = {
            name: buffer for name, buffer in self.model.named_buffers() if whole or _counts(buffer)
        }
        moments = None
        if whole or needs_moments(self.updates()[0]):
            moments = tuple(_copied(self._optimizer.state.get(p, {})) for p in self.trained)
        return State(
            self.step,
            tuple(parameter.detach().clone() for parameter in self.trained),
            moments,
            _copied(buffers),
            self._random(),
        )

    def restore(self, state: State) -> None:
        """Put a state back."""
        self.step = state.step
        for module, training in self._modes:
            module.training = training
        with torch.no_grad():
            for parameter, value in zip(self.trained, state.parameters, strict=True):
                parameter.copy_(value)
            for name, buffer in self.model.named_buffers():
                if name in state.buffers:
                    buffer.copy_(state.buffers[name])
        if state.moments is not None:
            self._optimizer.state.clear()
            for parameter, moments in zip(self.trained, state.moments, strict=True):
                if moments:
                    self._optimizer.state[parameter] = _copied(moments)
        torch.set_rng_state(state.random[0])
        self._augmentation.set_state(state.random[1])
        if len(state.random) > 2:
            torch.cuda.set_rng_state(state.random[2], self._device)

    def _random(self) -> tuple[Tensor, ...]:
        """States of the generators. One that drew nothing since the last call is not copied."""
        found = [torch.get_rng_state(), self._augmentation.get_state()]
        if self._device.startswith("cuda"):
            found.append(torch.cuda.get_rng_state(self._device))
        last = self._last_random or tuple(found)
        self._last_random = tuple(
            old if torch.equal(old, new) else new for old, new in zip(last, found, strict=True)
        )
        return self._last_random

    def _order(self, epoch: int) -> np.ndarray:
        """The rows of an epoch in the order that they are seen in."""
        if self._shuffled[0] != epoch:
            generator = torch.Generator()
            for number in range(min(epoch, len(self._orders) - 1), epoch + 1):
                generator.set_state(self._orders[number])
                shuffled = torch.randperm(self.n_examples, generator=generator).numpy()
                if number + 1 == len(self._orders):
                    self._orders.append(generator.get_state())
            self._shuffled = (epoch, shuffled[self._chosen_rows[shuffled]])
        return self._shuffled[1]

    def _draws_from(self, size: int) -> Tensor:
        """`DRAWS_FROM` of the next step's epoch, `[size]`."""
        epoch = self.step // self.steps_per_epoch
        number = int(fingerprint_of("draws", self._seed, epoch), 16) >> 1
        return torch.full((size,), number, dtype=torch.int64, device=self._device)

    def _batch(self, rows: np.ndarray) -> Batch:
        self._read_ahead()
        batch = read_batch(self._task, self._arrays, rows, self._encoding, self._device)
        if not self._recipe.augmentations:
            return batch
        batch = self._task.augment(batch, self._recipe.augmentations, self._augmentation)
        return {name: in_fast_layout(tensor) for name, tensor in batch.items()}

    def _read_ahead(self) -> None:
        """Begin to decode pictures of this step and, unless a replay walks back, of the next ones
        of its epoch."""
        goes_on, self._last_read = self.step == self._last_read + 1, self.step
        epoch, number = divmod(self.step, self.steps_per_epoch)
        first, size = number * self._batch_size, self._batch_size
        stop = first + size + (max(size, FEWEST_AHEAD) if goes_on else 0)
        rows = self._order(epoch)[first : min(stop, self.steps_per_epoch * size)]
        read_ahead(self._arrays, rows)

    def _mean_loss(self) -> Tensor:
        """The loss of the next step."""
        if self._weights is None:
            return self._losses(self._seen, None).mean()
        weights = self._weights[torch.from_numpy(self.rows())].to(self._device)
        losses = self._losses(self._seen, weights)
        weights = weights.to(losses)
        total = weights.sum()
        return (weights * losses).sum() / torch.where(total > 0, total, 1.0)

    def _set_rate(self) -> None:
        rate = learning_rate(self._recipe, self.step, self.n_steps)
        for group in self._optimizer.param_groups:
            group["lr"] = rate

    def _update(self, parameter: nn.Parameter, group: Mapping[str, Any]) -> Update:
        rate, decay = group["lr"], group["weight_decay"]
        if isinstance(self._optimizer, torch.optim.AdamW):
            done = self._optimizer.state.get(parameter, {}).get("step", 0)
            return AdamW(rate, decay, tuple(group["betas"]), group["eps"], int(done) + 1)
        return Sgd(rate, decay, group["momentum"], group["nesterov"])


def _counts(buffer: Tensor) -> bool:
    """Whether a buffer is a counter, such as BatchNorm's of batches."""
    return buffer.ndim == 0 and not buffer.is_floating_point()


def _copied(tensors: Mapping[str, Any]) -> dict[str, Tensor]:
    """Copies of tensors; torch's optimizers may also keep None."""
    return {name: one.detach().clone() for name, one in tensors.items() if one is not None}


def _generator(purpose: str, seed: int) -> torch.Generator:
    """A generator on the CPU, which draws the same for every device."""
    return torch.Generator().manual_seed(int(fingerprint_of(purpose, seed), 16) >> 1)


@contextlib.contextmanager
def _reproducible(seed: int, device: str) -> Iterator[None]:
    """Seed the global generators, which dropout draws from, and make cuDNN deterministic."""
    cuda = device.startswith("cuda")
    with (
        torch.random.fork_rng(devices=None if cuda else []),
        torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True),
    ):
        torch.default_generator.manual_seed(seed)
        if cuda:
            torch.cuda.manual_seed_all(seed)
        yield
