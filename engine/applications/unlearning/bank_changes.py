"""Predict the change of every class logit after forgetting, from a run bank that keeps logits.

A lasso datamodel, or the hybrid whose prior is TRAK, is fitted to each class logit of the requested
examples. Only the sum of its weights over the forget set is kept. The bank must have
`logits = true`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from engine import store
from engine.applications.unlearning.sources import Source
from engine.attribution.datamodels.run_bank import mean_of_seeds
from engine.build.batches import batches_of, mean_out_to_loss, stored_out_to_loss
from engine.build.models import load_checkpoint
from engine.build.retraining import Removal
from engine.build.tasks import task_of
from engine.store import layout
from engine.store.layout import HYBRID, SPLITS, Split
from engine.study.examples import read_stacked_arrays
from engine.study.models import checkpoint_seed
from engine.study.reader import StudyReader
from engine.study.run_banks import read_bank
from engine.study.score_matrices import stored_solver
from engine.tasks import Task

if TYPE_CHECKING:
    import torch
    from torch import nn

    from engine.attribution.trak.plan import Batch, Output

_BLOCK = 64
"""Examples whose class logits are fitted together."""
_SCORES = 60_000_000
"""Scores that are in memory at once: 240 MB. Each block of them solves every checkpoint's system
anew, so blocks are large."""
_CLASS = "context_class"


def predict_changes_by_bank(
    study: StudyReader,
    algorithm: str,
    source: Source,
    removed: Removal,
    split: Split,
    rows: np.ndarray,
    units: np.ndarray,
    device: str = "cpu",
) -> np.ndarray:
    """Predicted change of the class logits of some examples without `removed`: `[k, classes]`.

    Args:
        source: `datamodel` or `hybrid`.
        rows: Rows of `split`, ascending.
        units: Factors that turn TRAK scores into changes of the output, `[n_train]`.
    """
    bank, logits = (
        read_bank(study, algorithm, train=False),
        bank_logits(study, algorithm, split, rows),
    )
    both = bank.part("fit", "validation")
    places = np.searchsorted(bank.numbers, both.numbers)
    outputs = logits[places].reshape(len(places), -1)
    classes = logits.shape[2]
    if source == "datamodel":
        from engine.attribution.datamodels.fit import fit_datamodels

        found = fit_datamodels(both.masks, outputs, both.held_out, device=device)
        change = np.concatenate(
            [
                -found.rows(block)[:, list(removed)].sum(axis=1)
                for block in np.array_split(np.arange(outputs.shape[1]), len(rows) // _BLOCK + 1)
            ]
        )
        return change.reshape(len(rows), classes)
    import torch

    from engine.attribution.datamodels import hybrid

    kept = store.read_json(layout.method_file(study.root, algorithm, HYBRID))
    settings = hybrid.Settings(*(float(kept[name]) for name in ("ridge", "flat", "noise", "width")))
    masks, unit = torch.from_numpy(both.masks), torch.from_numpy(units)
    leaving = torch.zeros(study.dataset.n_train).index_fill(0, torch.tensor(removed), -1)
    actual = torch.from_numpy(outputs)
    blocks, together = [], max(_BLOCK, _SCORES // (classes * study.dataset.n_train))
    for start in range(0, len(rows), together):
        tau = class_scores(study, algorithm, split, rows[start : start + together], device)
        for scored, observed in zip(
            tau.split(_BLOCK * classes),
            actual[:, start * classes : (start + together) * classes].split(_BLOCK * classes, 1),
            strict=True,
        ):
            mean, _ = hybrid.change_deviation(scored * unit, masks, observed, settings, leaving)
            blocks.append(mean.numpy())
    return np.concatenate(blocks).reshape(len(rows), classes)


def bank_logits(study: StudyReader, algorithm: str, split: Split, rows: np.ndarray) -> np.ndarray:
    """Logits of the subset runs, mean over seeds: float32 `[masks, k, classes]`."""
    assert split in SPLITS
    runs = study.spec.subset_runs
    found = []
    for mask in range(runs.masks):
        seeds = range(runs.seeds_of(mask))
        files = [layout.run_file(study.root, algorithm, mask, seed) for seed in seeds]
        shards = [store.read_tensors(file) for file in files]
        found.append(mean_of_seeds(shard[f"{split}_logits"][rows] for shard in shards))
    return np.stack(found)


def class_scores(
    study: StudyReader, algorithm: str, split: Split, rows: np.ndarray, device: str
) -> torch.Tensor:
    """TRAK of every class logit of some examples: `[k · classes, n_train]`, classes innermost."""
    import torch

    from engine.attribution.trak.dual import attribute_dual
    from engine.attribution.trak.kernel import NO_LIMIT
    from engine.training.outputs import read_batch

    task, encoding = task_of(study), study.dataset.encoding
    solver, total = stored_solver(study, algorithm), study.checkpoints(algorithm)
    arrays, size = read_stacked_arrays(study, split), study.spec.trak.batch_size
    classes = len(study.dataset.classes)

    def requested() -> Iterator[Batch]:
        for some in _pieces(rows, max(1, size // classes)):
            batch = read_batch(task, arrays, some, encoding, device)
            repeated = {name: t.repeat_interleave(classes, dim=0) for name, t in batch.items()}
            yield {**repeated, _CLASS: torch.arange(classes, device=device).repeat(len(some))}

    output = class_logit_or_output(task)
    scores = torch.zeros(len(rows) * classes, study.dataset.n_train)
    for checkpoint in range(total):
        model = load_checkpoint(study, algorithm, checkpoint, device)
        q = torch.from_numpy(stored_out_to_loss(study, algorithm, checkpoint))
        train, seed = batches_of(study, "train", device, size), checkpoint_seed(study, checkpoint)
        scores += attribute_dual(model, output, train, requested, solver, seed, NO_LIMIT, q).cpu()
    return scores / total * torch.from_numpy(mean_out_to_loss(study, algorithm, total, solver))


def class_logit_or_output(task: Task) -> Output:
    """A model output: the class logit that a batch requests, or else the task's model output."""
    from engine.tasks.classification import logits

    def output(model: nn.Module, batch: Batch) -> torch.Tensor:
        if _CLASS not in batch:
            return task.model_output(model, batch)
        return logits(model, batch).gather(-1, batch[_CLASS].unsqueeze(-1)).squeeze(-1)

    return output


def _pieces(rows: np.ndarray, size: int) -> Sequence[np.ndarray]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]
