"""Fit an algorithm's datamodel or hybrid again, to other runs or with another prior.

Settings stay as the study chose them.
"""

from __future__ import annotations

import tempfile

import numpy as np

from engine import store
from engine.applications.modeldiff.residuals import Attributions
from engine.attribution.datamodels.run_bank import RunBank
from engine.attribution.scores.dense import DenseScores
from engine.attribution.scores.sparse import SparseScores
from engine.build.stages.datamodels import MOST_FOR_UNITS
from engine.running.processes import default_workers
from engine.store import layout
from engine.store.layout import HYBRID, ROWS_PER_SHARD
from engine.store.rows import evenly_spread
from engine.study.reader import StudyReader


def refit_datamodel(runs: RunBank) -> SparseScores:
    """The lasso datamodels of all test examples."""
    from engine.attribution.datamodels.fit import fit_datamodels

    threads = default_workers("cpu")
    found = fit_datamodels(runs.masks, runs.test, runs.held_out, threads=threads)
    return SparseScores([found.weights])


def refit_hybrid(
    study: StudyReader, algorithm: str, prior: Attributions, runs: RunBank
) -> DenseScores:
    """The algorithm's hybrid of all test examples.

    Args:
        prior: TRAK scores before the soft threshold, which is applied like to the study's own.
        runs: Runs to fit to.
    """
    import torch

    from engine.attribution.datamodels import hybrid

    about = store.read_json(layout.method_file(study.root, algorithm, HYBRID))
    settings = hybrid.Settings(
        **{name: about[name] for name in ("ridge", "flat", "noise", "width")}
    )
    masks, outputs = torch.from_numpy(runs.masks), torch.from_numpy(runs.test)
    threshold = store.read_tensors(layout.weighting_file(study.root, algorithm)).get("threshold")

    def trak(tests: np.ndarray) -> torch.Tensor:
        own = None if threshold is None else threshold[tests]
        scores = DenseScores([prior.rows(tests)], own)
        return torch.from_numpy(scores.rows(np.arange(len(tests))))

    shape = study.dataset.n_test, study.dataset.n_train
    spread = evenly_spread(shape[0], MOST_FOR_UNITS)
    units = hybrid.output_units(trak(spread), masks, outputs[:, spread], settings.ridge)
    # The dense matrix may exceed memory. A nameless file is deleted with its last reader.
    with tempfile.TemporaryFile(dir=study.root) as file:
        weights = np.memmap(file, np.float32, "w+", shape=shape)
    for tests in np.array_split(np.arange(shape[0]), -(-shape[0] // ROWS_PER_SHARD)):
        found = hybrid.fit(trak(tests) * units, masks, outputs[:, tests], settings)
        weights[tests] = found.weights.numpy()
    return DenseScores([weights])
