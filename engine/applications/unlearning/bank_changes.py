"""Predict the change of every class logit after forgetting, from a run bank that keeps logits.

A lasso datamodel, or the hybrid whose prior is TRAK, is fitted to each class logit of the requested
examples. Only the sum of its weights over the forget set is kept. The bank must have
`logits = true`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from engine import store
from engine.attribution.datamodels.run_bank import mean_of_seeds
from engine.build.batches import batches_of, mean_out_to_loss, stored_out_to_loss
from engine.build.models import load_checkpoint
from engine.build.retraining import Removal
from engine.build.tasks import task_of
from engine.store import layout
from engine.store.errors import DataloupeError, StoreError
from engine.store.layout import HYBRID, SPLITS, Split
from engine.study.examples import read_stacked_arrays
from engine.study.models import checkpoint_seed
from engine.study.reader import StudyReader
from engine.study.run_banks import has_bank, read_bank, read_bank_import
from engine.study.score_matrices import stored_solver
from engine.tasks import Task

if TYPE_CHECKING:
    import torch
    from torch import nn

    from engine.attribution.trak.plan import Batch, Output

Source = Literal["trak", "datamodel", "hybrid"]
SOURCES: tuple[Source, ...] = ("trak", "datamodel", "hybrid")
_BLOCK = 64
"""Examples whose class logits are fitted together."""
_SCORES = 60_000_000
"""Scores that are in memory at once: 240 MB. Each block of them solves every checkpoint's system
anew, so blocks are large."""
_CLASS = "context_class"


def check_source(study: StudyReader, algorithm: str, source: str) -> None:
    """Reject a source that cannot predict class logits in this study.

    Raises:
        DataloupeError: There is no such source. StoreError: There is no bank with logits.
    """
    if source not in SOURCES:
        raise DataloupeError(
            f"Changes cannot be predicted by {source!r}. Choose one of {', '.join(SOURCES)}."
        )
    if source == "trak":
        return
    if read_bank_import(study, algorithm) or not study.spec.subset_runs.logits:
        raise StoreError(
            f"To predict class logits by {source}, the run bank of {algorithm} must keep them: "
            f"set logits = true under [subset_runs] in {layout.spec_file(study.root)} and build "
            "it again."
        )
    if not has_bank(study, algorithm):
        raise StoreError(
            f"The run bank of {algorithm} is incomplete. `dataloupe build {study.root}` "
            "finishes it."
        )
    if source == "hybrid":
        if not layout.method_file(study.root, algorithm, HYBRID).exists():
            raise StoreError(
                f"{algorithm} has no hybrid yet. `dataloupe build {study.root}` makes it."
            )
        if stored_solver(study, algorithm).kind == "primal":
            raise DataloupeError(
                "The hybrid of class logits needs a dual solver, and this study has the primal "
                "one: predict by trak or datamodel."
            )


def best_source(study: StudyReader, algorithm: str) -> Source:
    """The hybrid where the study can predict by it, else TRAK."""
    try:
        check_source(study, algorithm, "hybrid")
    except DataloupeError:
        return "trak"
    return "hybrid"


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
