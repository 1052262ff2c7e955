"""LDS of every method on the two studies of `benchmarks.text_study`, on their test masks."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from transformers import PreTrainedModel

from benchmarks._report import log
from benchmarks._server import ROOT
from benchmarks.rivals import PROJ_DIM, ekfac_scores, traker_scores
from benchmarks.text_study import BASELINES
from engine import Study, store
from engine.attribution.datamodels.run_bank import RunBank
from engine.attribution.evaluation.lds import lds_of_predictions
from engine.attribution.evaluation.quality import Measured
from engine.attribution.scores.factors import combine
from engine.build.batches import batches_of, stored_out_to_loss
from engine.build.models import load_checkpoint
from engine.build.tasks import task_at
from engine.models.answers import logits_of
from engine.models.calling import call
from engine.store.layout import HYBRID, SPLITS, TRAK

COUNTS = (1, 5)
MOST = {
    name: int(os.environ.get(f"DATALOUPE_TEXT_{name.upper()}", max(COUNTS)))
    for name in ("traker", "traker_512", "ekfac")
}
"""Checkpoints of the other tools."""


def lds_of_study(study: Study) -> dict[str, Any]:
    """`{method: {checkpoints: {lds, low, high}}}` of our methods and of simpler ones."""
    quality = study.quality()
    assert quality is not None
    found: dict[str, dict[str, Any]] = {"ours": {}, "hybrid": {}}
    for point in quality.checkpoints:
        if point.n in COUNTS:
            found["ours"][str(point.n)] = rounded(point.lds)
    most = str(max(COUNTS))
    found["ours_thresholded"] = {most: rounded(quality.methods[TRAK].lds)}
    found["hybrid"][most] = rounded(quality.methods[HYBRID].lds)
    test = study.bank(train=False).part("test")
    for name, scores in BASELINES.items():
        found[name] = {most: scored(scores(study, max(COUNTS)), test)}
    cosine = gradient_cosine(study, 0)
    found["gradient_cosine"] = {"1": scored(cosine, test)}
    ceiling = quality.ceiling
    return {
        "lds": found,
        "lds_noise_ceiling": None if ceiling is None else rounded(ceiling),
        "test_masks": len(test),
        "test_accuracy": round(float(study.predictions("test")["correct"].mean()), 4),
    }


def lds_of_others(study: Study) -> dict[str, Any]:
    """The same of traker and kronfluence, averaged over the first 1 and 5 checkpoints, as far as
    `MOST` allows."""
    test = study.bank(train=False).part("test")
    algorithm = next(iter(study.algorithms))
    found: dict[str, dict[str, Any]] = {}
    for name, (_, times_q) in OTHERS.items():
        total = np.zeros((study.dataset.n_test, study.dataset.n_train), np.float32)
        q = np.zeros(study.dataset.n_train, np.float32)
        for checkpoint in range(MOST[name]):
            total += kept_scores(study, name, checkpoint)
            q += stored_out_to_loss(study, algorithm, checkpoint)
            count = checkpoint + 1
            if count in COUNTS:
                weight = q / count if times_q else np.ones_like(q)
                tau = combine(total.copy(), count, weight)
                found.setdefault(name, {})[str(count)] = scored(tau, test)
    return found


def kept_scores(study: Study, name: str, checkpoint: int) -> np.ndarray:
    """Scores of another tool `[n_test, n_train]`; some take ten minutes, so that they are kept."""
    q = stored_out_to_loss(study, next(iter(study.algorithms)), checkpoint)  # tells the model
    fingerprint = store.fingerprint_of(name, q.tolist())
    path = ROOT / ".bench" / "text" / f"{name}-{checkpoint}-{fingerprint}.safetensors"
    if not path.exists():
        log(f"{name}, checkpoint {checkpoint}")
        scores = OTHERS[name][0](study, checkpoint).astype(np.float32)
        store.write_tensors(path, {"scores": scores}, fingerprint)
    return np.array(store.read_tensors(path)["scores"])


def scored(tau: np.ndarray, test: RunBank) -> dict[str, float]:
    """LDS of scores `[n_test, n_train]` on test masks, with its 95 % interval."""
    predicted = tau @ test.masks.T.astype(np.float32)
    found = lds_of_predictions(predicted, np.ascontiguousarray(test.test.T))
    return rounded(Measured(found.mean, found.low, found.high))


def rounded(measured: Measured) -> dict[str, float]:
    """For JSON."""
    return {
        "lds": round(measured.mean, 4),
        "low": round(measured.low, 4),
        "high": round(measured.high, 4),
    }


# --- methods -------------------------------------------------------------------------------------


def gradient_cosine(study: Study, checkpoint: int) -> np.ndarray:
    """Cosine of the gradients of the model output, in the sketch of the stored solver."""
    from dataclasses import replace

    from engine.attribution.trak.kernel import first_examples
    from engine.attribution.trak.primal import primal_projection
    from engine.attribution.trak.projection import features
    from engine.study.models import checkpoint_seed
    from engine.study.score_matrices import stored_solver

    algorithm = next(iter(study.algorithms))
    model = load_checkpoint(study, algorithm, checkpoint, "cpu")
    output, spec = task_at(study, algorithm, checkpoint).model_output, study.spec.trak
    train, test = (batches_of(study, split, "cpu", spec.batch_size) for split in SPLITS)
    solver = replace(stored_solver(study, algorithm), width=spec.width, proj_dim=spec.proj_dim)
    projection = primal_projection(
        model, output, first_examples(train), solver, checkpoint_seed(study, checkpoint)
    )
    units = [
        F.normalize(torch.cat(list(features(model, output, batches(), projection))))
        for batches in (train, test)
    ]
    found: np.ndarray = (units[1] @ units[0].T).numpy()
    return found


def traker(study: Study, checkpoint: int, proj_dim: int = PROJ_DIM) -> np.ndarray:
    """traker 0.3.2 with its text classification output, at its defaults, in float32.

    By default it projects to 2,048 numbers. From 2,000 examples, and without λ, its Gram matrix is
    then singular, so it is also asked for 512.
    """
    model = _Positional(load_checkpoint(study, next(iter(study.algorithms)), checkpoint, "cpu"))
    train, test = (_whole_batches(study, split) for split in ("train", "test"))
    trained = [name for name, weight in model.named_parameters() if weight.requires_grad]
    scores = traker_scores(
        model, model.state_dict(), checkpoint, train, test, "text_classification", trained, proj_dim
    )
    found: np.ndarray = scores.numpy()
    return found


def ekfac(study: Study, checkpoint: int) -> np.ndarray:
    """kronfluence 1.0.1: influence functions with EK-FAC, at its defaults, on all linear layers
    that are trained."""
    model = _Positional(load_checkpoint(study, next(iter(study.algorithms)), checkpoint, "cpu"))
    train, test = (
        torch.utils.data.TensorDataset(
            *(torch.cat(parts) for parts in zip(*_whole_batches(study, split), strict=True))
        )
        for split in ("train", "test")
    )
    trained = [
        name
        for name, layer in model.named_modules()
        if isinstance(layer, torch.nn.Linear) and layer.weight.requires_grad
    ]
    scores = ekfac_scores(
        model, checkpoint, train, test, (128, 100), lambda batch: batch[2], trained
    )
    found: np.ndarray = scores.numpy()
    return found


class _Positional(torch.nn.Module):
    """A model that takes its inputs by position too, and returns its logits, as tools want."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model
        for part in model.modules():
            if isinstance(part, PreTrainedModel):
                part.set_attn_implementation("eager")  # traker's vmap runs no other

    def forward(
        self,
        input_ids: torch.Tensor,
        token_type_ids: torch.Tensor,  # all 0, as the model has them without being told
        attention_mask: torch.Tensor,
    ) -> torch.Tensor:
        # What is added to the attention of every query, because the model makes it from a mask of
        # tokens in a way that vmap cannot run. (Of a mask of booleans, 1 would be added.)
        away = torch.finfo(torch.float32).min * (1 - attention_mask.float())
        pairs = away[:, None, None]
        return logits_of(call(self.model, {"input_ids": input_ids, "attention_mask": pairs}))


def _whole_batches(study: Study, split: str, size: int = 64) -> list[list[torch.Tensor]]:
    """[input_ids, token_type_ids, attention_mask, label] of all examples, padded to one length."""
    batches = list(batches_of(study, split, "cpu", study.dataset.rows(split))())  # type: ignore[arg-type]
    (batch,) = batches
    ids = batch["input_ids"]
    tensors = [ids, torch.zeros_like(ids), batch["attention_mask"], batch["label"]]
    return [list(part) for part in zip(*(tensor.split(size) for tensor in tensors), strict=True)]


OTHERS: dict[str, tuple[Callable[[Study, int], np.ndarray], bool]] = {
    "traker": (traker, True),
    "traker_512": (partial(traker, proj_dim=512), True),
    "ekfac": (ekfac, False),
}
"""Name → (scores of one checkpoint, whether their mean must be multiplied by the mean of Q)."""
