"""Check what a model needs to be trained and attributed, on a few examples, before it is trained.

Everything that follows takes for granted that the model gives the same logits whenever it sees the
same example, whatever else is in the batch, and that gradients reach its parameters.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from engine.attribution.trak.make_plan import (
    COARSE,
    FINE,
    check_uncoupled,
    is_coarse,
    plan_gradients,
)
from engine.attribution.trak.plan import Batch, head
from engine.models.answers import described
from engine.models.ready import notes_of
from engine.store.errors import DataloupeError, SpecError
from engine.tasks import Task
from engine.training.outputs import evaluate_batch

_REPEATED = 1e-4
"""Relative difference between two runs of the same examples that rounding explains."""
_FEW = 3
"""Names in a message."""


def check_model(
    task: Task, model: nn.Module, batch: Batch, trained: bool, label_smoothing: float = 0.0
) -> list[str]:
    """Check a model on prepared examples; return what its owner should know, as sentences.

    The model, its buffers and the global random state are as before afterwards.

    Args:
        model: With the weights that training starts from, or that are attributed.
        batch: At least two examples.
        trained: Whether the model will be trained, and is tried in train mode too.
        label_smoothing: Of the training loss.

    Raises:
        SpecError: The model cannot be used as it is.
        CheckpointError: As in `plan_gradients`.
    """
    size = len(next(iter(batch.values())))
    model.eval()
    _check_state(model)
    check_uncoupled(model)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with _restored(model, before), torch.random.fork_rng(devices=[]):
        with _explained("predict the first training examples"):
            evaluate_batch(task, model.eval(), batch)
            _check_answer(task, _answer(task, model, batch), size)
        answer, gradients = _run(task, model, batch)
        notes = notes_of(model) + _reached(model, gradients)
        again, gradients_again = _run(task, model, batch)
        if _differ(answer, again) or _any_differs(gradients, gradients_again):
            raise _not_repeatable(model, before)
        tolerance = COARSE if is_coarse(model, task.model_output, batch) else FINE
        _check_independence(task, model, batch, answer, tolerance)
        with _explained("give gradients of single examples"):
            plan_gradients(model, task.model_output, batch)
        if trained:
            _try_training(task, model, batch, label_smoothing)
    return notes


def _check_state(model: nn.Module) -> None:
    for name, value in model.state_dict().items():
        if not isinstance(value, Tensor) or value.is_quantized:
            raise SpecError(
                f"the model's state has {name!r}, which is {_kind(value)}, as in quantized models. "
                "Only weights that are ordinary tensors have gradients; use the model from before "
                "quantization."
            )
        if value.layout is not torch.strided:
            raise SpecError(f"the model's {name!r} is a sparse tensor; make it dense.")


def _kind(value: Any) -> str:
    return "a quantized tensor" if isinstance(value, Tensor) else f"a {type(value).__name__}"


def _answer(task: Task, model: nn.Module, batch: Batch) -> Tensor:
    """Everything that is kept of the model's answers, `[batch, numbers]`."""
    return _joined(task.record(model, batch))


def _joined(record: Mapping[str, Tensor]) -> Tensor:
    """Numbers of a record, `[batch, numbers]`, without those that name things, such as tokens."""
    parts = [part.detach() for part in record.values() if part.is_floating_point()]
    return torch.cat([part.reshape(len(part), -1) for part in parts], dim=1)


def _check_answer(task: Task, answer: Tensor, size: int) -> None:
    if len(answer) != size:
        raise SpecError(
            f"the model gives {described(answer)} for {size} examples; it must give one row for "
            "each."
        )
    if not answer.isfinite().all():
        raise SpecError(
            "the model's outputs are not finite on the first training examples: its weights hold "
            "NaN or infinite values, or a layer overflows."
        )
    if task.outcomes is None:
        return
    if (answer >= 0).all() and (answer.sum(1) - 1).abs().max() < 1e-3:
        raise SpecError(
            "the model returns probabilities (each row sums to 1), and logits are needed: leave "
            "out its final softmax, or return log_softmax."
        )


def _run(task: Task, model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor | None]]:
    """The answer, and the gradient of the sum of all model outputs for each trainable parameter.

    The gradient is None where no path leads to the parameter.
    """
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    with _explained("compute gradients"), torch.enable_grad():
        parts = task.record(model, batch)
        total = task.model_output(model, batch).sum()
        if "logits" in parts and _ends_in_sigmoid(parts["logits"]):
            raise SpecError("the model ends in a sigmoid, and logits are needed: leave it out.")
        answer = _joined(parts)
        if not parameters or not total.requires_grad:
            return answer, dict.fromkeys(parameters)
        found = torch.autograd.grad(total, list(parameters.values()), allow_unused=True)
    return answer, dict(zip(parameters, found, strict=True))


def _ends_in_sigmoid(logits: Tensor) -> bool:
    return logits.grad_fn is not None and "Sigmoid" in type(logits.grad_fn).__name__


def _reached(model: nn.Module, gradients: Mapping[str, Tensor | None]) -> list[str]:
    """Sentences about parameters that are frozen or that no gradient reaches."""
    total = len(list(model.parameters()))
    if not total:
        raise SpecError(
            "the model has no parameters, so there is nothing to train or to attribute to."
        )
    if not gradients:
        raise SpecError(
            "all parameters of the model are frozen (requires_grad is False), so there is nothing "
            "to train or to attribute to; unfreeze at least its head."
        )
    unreached = [name for name, gradient in gradients.items() if gradient is None]
    if len(unreached) == len(gradients):
        raise SpecError(
            "no gradient reaches any parameter of the model: it runs under torch.no_grad(), or its "
            "output is detached. Remove that around its trainable part."
        )
    notes = []
    if frozen := [name for name, p in model.named_parameters() if not p.requires_grad]:
        notes.append(
            f"{len(frozen)} of {total} parameters are frozen ({_first(frozen)}): they are not "
            "trained, and nothing is attributed to them."
        )
    if unreached:
        notes.append(
            f"No gradient reaches {len(unreached)} of {total} parameters ({_first(unreached)}): "
            "they are under torch.no_grad(), detached or not used. They are not trained, and "
            "nothing is attributed to them."
        )
    return notes


def _differ(first: Tensor, second: Tensor, tolerance: float = _REPEATED) -> bool:
    """Whether the largest difference is more than a share of the largest number."""
    scale = max(first.abs().max().item(), 1e-30)
    return not (first - second).abs().max().item() <= tolerance * scale


def _any_differs(first: Mapping[str, Tensor | None], second: Mapping[str, Tensor | None]) -> bool:
    """Whether any gradient differs: a random layer before a head of zeros changes no output."""
    pairs = [(gradient, second[name]) for name, gradient in first.items()]
    return any(a is not None and b is not None and _differ(a, b) for a, b in pairs)


def _not_repeatable(model: nn.Module, before: Mapping[str, Tensor]) -> SpecError:
    after = model.state_dict()
    changed = [name for name, tensor in before.items() if not torch.equal(tensor, after[name])]
    if changed:
        return SpecError(
            f"the model changes its own {changed[0]!r} whenever it predicts, so it gives other "
            "outputs for the same examples. Change it in train mode only (if self.training)."
        )
    return SpecError(
        "the model is random in eval mode: it gives different outputs or gradients for the same "
        "examples. F.dropout(x) drops in eval mode too: write F.dropout(x, "
        "training=self.training), or use nn.Dropout; draw other random numbers in train mode only."
    )


def _check_independence(
    task: Task, model: nn.Module, batch: Batch, answer: Tensor, tolerance: float
) -> None:
    """Each example's answer is the same in any company, and so is the first one's gradient."""
    size = len(answer)
    orders = {"in another order": list(reversed(range(size)))}
    orders |= {"alone": [0], "alone, too": [size - 1]}
    for rows in orders.values():
        some = {name: tensor[rows] for name, tensor in batch.items()}
        with _explained(f"predict {len(rows)} of the first {size} examples"), torch.no_grad():
            found = _answer(task, model, some)
        if found.shape != (len(rows), answer.shape[1]):
            raise SpecError(
                f"the model gives {described(found)} for {len(rows)} examples; it must give one "
                "row of numbers for each."
            )
        if _differ(answer[rows], found, tolerance):
            raise _coupled("logits")
    parameters = [p for p in model.parameters() if p.requires_grad]
    with _explained("compute the gradient of one example"), torch.enable_grad():
        first = [
            torch.autograd.grad(
                task.model_output(model, some)[0], parameters, materialize_grads=True
            )
            for some in (batch, head(batch, 1))
        ]
    together, alone = (torch.cat([part.flatten().float() for part in parts]) for parts in first)
    if _differ(alone, together, 3 * tolerance):
        raise _coupled("gradient")


def _coupled(what: str) -> SpecError:
    return SpecError(
        f"the {what} of an example depend on the other examples of its batch, so they cannot be "
        "attributed. Batch statistics must be used in train mode only (F.batch_norm(..., "
        "training=self.training)), and nothing may be averaged or compared over a batch."
    )


def _try_training(task: Task, model: nn.Module, batch: Batch, label_smoothing: float) -> None:
    """One loss and its gradient in train mode."""
    model.train()
    try:
        with _explained("be trained"), torch.enable_grad():
            loss = task.loss(model, batch, label_smoothing).mean()
            if not loss.requires_grad:
                raise SpecError("the loss has no gradient in train mode; remove torch.no_grad().")
            parameters = [p for p in model.parameters() if p.requires_grad]
            torch.autograd.grad(loss, parameters, allow_unused=True)
        if not loss.isfinite():
            raise SpecError(f"the loss of the untrained model is {loss.item()} in train mode.")
    finally:
        model.eval()


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turn any exception of a user's model into one line."""
    try:
        yield
    except DataloupeError:
        raise
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SpecError(f"the model cannot {what}: {reason}") from error


@contextlib.contextmanager
def _restored(model: nn.Module, state: Mapping[str, Tensor]) -> Iterator[None]:
    try:
        yield
    finally:
        with torch.no_grad():
            for name, tensor in model.state_dict().items():
                tensor.copy_(state[name])
        model.eval()


def _first(names: list[str]) -> str:
    return ", ".join(names[:_FEW]) + (", …" if len(names) > _FEW else "")
