"""The dense exact path: slow, plain, and independent of the hooks. The oracle of the tests."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from engine.attribution.trak.plan import Batch, Output


def dense_gradients(model: nn.Module, output: Output, batch: Batch) -> Tensor:
    """Per-example gradients of all parameters by torch.func: `[batch, n_parameters]`.

    Columns follow `model.named_parameters()`; parameters that require no gradient are left out.
    """
    parameters = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}

    class Outputs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, batch: Batch) -> Tensor:
            return output(self.model, batch)

    outputs = Outputs()

    def one(values: dict[str, Tensor], example: Batch) -> Tensor:
        single = {name: tensor.unsqueeze(0) for name, tensor in example.items()}
        renamed = {f"model.{name}": value for name, value in values.items()}
        result: Tensor = torch.func.functional_call(outputs, renamed, (single,))[0]
        return result

    found = torch.func.vmap(torch.func.grad(one), in_dims=(None, 0))(parameters, batch)
    return torch.cat([found[name].reshape(len(found[name]), -1) for name in parameters], 1)


def dense_trak(train: Tensor, test: Tensor, damping: float) -> Tensor:
    """TRAK of one checkpoint without projection and without Q, in float64.

    Args:
        train: Gradients `[n_train, p]`.
        test: Gradients `[n_test, p]`.
        damping: λ; the ridge is λ · mean diag(ΦΦᵀ), the dual's.

    Returns:
        Scores `[n_test, n_train]`.
    """
    train, test = train.double(), test.double()
    kernel = train @ train.T
    ridge = damping * kernel.diagonal().mean()
    eye = torch.eye(len(train), dtype=torch.float64, device=train.device)
    scores: Tensor = torch.linalg.solve(kernel + ridge * eye, train @ test.T).T
    return scores


def autograd_rows(model: nn.Module, output: Output, batch: Batch) -> dict[str, Tensor]:
    """Per-example gradients `[batch, *shape]` by one ordinary backward pass for each example."""
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    rows = []
    for i in range(len(next(iter(batch.values())))):
        value = output(model, {name: tensor[i : i + 1] for name, tensor in batch.items()})[0]
        rows.append(torch.autograd.grad(value, list(parameters.values()), materialize_grads=True))
    return {name: torch.stack([row[k] for row in rows]) for k, name in enumerate(parameters)}
