"""traker 0.3.2 on source and target texts: its own output for them is missing, so that it is given
the mean log-odds of the target's tokens, as the paper has it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from benchmarks.rivals import traker_scores
from engine import Study
from engine.build.batches import batches_of
from engine.build.models import load_checkpoint
from engine.models.calling import call
from engine.store.layout import SPLITS, Split
from engine.tasks.margin import margin

INPUTS = ("input_ids", "attention_mask", "target_ids", "target_mask")


def traker(study: Study, checkpoint: int) -> np.ndarray:
    """Scores `[n_test, n_train]` of one checkpoint, before multiplication by Q."""
    model = _Positional(load_checkpoint(study, next(iter(study.algorithms)), checkpoint, "cpu"))
    train, test = (_whole_batches(study, split) for split in SPLITS)
    torch.manual_seed(checkpoint)
    scores = traker_scores(model, model.state_dict(), checkpoint, train, test, _log_odds())
    found: np.ndarray = scores.numpy()
    return found


def _log_odds() -> Any:
    from trak.modelout_functions import AbstractModelOutput

    class LogOdds(AbstractModelOutput):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()

        @staticmethod
        def get_output(model: nn.Module, weights: Any, buffers: Any, *example: Tensor) -> Tensor:
            inputs = tuple(one.unsqueeze(0) for one in example)
            logits = torch.func.functional_call(model, (weights, buffers), inputs)
            return _mean(margin(logits, inputs[2]), inputs[3]).sum()

        def get_out_to_loss_grad(
            self, model: nn.Module, weights: Any, buffers: Any, batch: Any
        ) -> Tensor:
            logits = torch.func.functional_call(model, (weights, buffers), tuple(batch))
            unsure = torch.sigmoid(-margin(logits, batch[2]))
            return _mean(unsure, batch[3]).detach()[:, None]

    return LogOdds()


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    return (values * mask).sum(1) / mask.sum(1)


class _Positional(nn.Module):
    """A model that takes its inputs by position and returns logits, as traker wants."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        for part in model.modules():
            if isinstance(part, PreTrainedModel):
                part.set_attn_implementation("eager")  # traker's vmap runs no other

    def forward(self, *inputs: Tensor) -> Tensor:
        named = dict(zip(INPUTS, inputs, strict=True))
        # Added to the attention of every query, because the model makes such a mask from one of
        # tokens in a way that vmap cannot run.
        away = torch.finfo(torch.float32).min * (1 - named["attention_mask"].float())
        named["attention_mask"] = away[:, None, None]
        found: Tensor = call(self.model, named)
        return found


def _whole_batches(study: Study, split: Split, size: int = 64) -> list[list[Tensor]]:
    """Batches of all examples, padded to one length."""
    (batch,) = batches_of(study, split, "cpu", study.dataset.rows(split))()
    tensors = [batch[name] for name in INPUTS]
    return [list(part) for part in zip(*(one.split(size) for one in tensors), strict=True)]
