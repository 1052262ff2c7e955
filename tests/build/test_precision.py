"""Gradients in mixed precision: nearly the same scores, and nothing else changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from engine.api import Study
from engine.applications.live import load
from engine.attribution.trak.solver import ROUNDING, Precision
from engine.build.batches import batches_of
from engine.build.models import load_checkpoint
from engine.build.stages.trak import attribution_fingerprint
from engine.build.tasks import attributed_task, task_at
from engine.store import layout
from engine.study.examples import read_stacked_arrays
from engine.study.score_matrices import read_score_matrix, stored_solver
from tests.builders.built_once import built_once
from tests.conftest import SMALL_STUDY

SOLVERS = ("primal", "dual-exact", "dual-wide")
CNN = SMALL_STUDY.replace("masks = 15", "masks = 0").replace(
    'architecture = "mlp"\narchitecture_options = { widths = [32] }',
    'architecture = "resnet-small"',
)


def spec(solver: str, precision: Precision) -> str:
    base = CNN if solver == "primal" else SMALL_STUDY.replace("masks = 15", "masks = 0")
    trak = f'[trak]\nsolver = "{solver}"\nproj_dim = 200\nwidth = 256\nprecision = "{precision}"\n'
    if solver == "dual-exact":
        trak = trak.replace("width = 256\n", "")
    return base.replace("train_limit = 300", "train_limit = 150") + trak


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, Precision], Study]:
    """The same study with each solver and precision."""

    def make(solver: str, precision: Precision) -> Study:
        def create(root: Path) -> Study:
            study = Study.create(root, spec(solver, precision))
            study.build(workers=0)
            return study

        return Study.open(built_once(tmp_path_factory, f"precision-{solver}-{precision}", create))

    return {(solver, p): make(solver, p) for solver in SOLVERS for p in ROUNDING}


@pytest.mark.parametrize("solver", SOLVERS)
def test_scores_are_almost_those_of_float32(
    studies: dict[tuple[str, Precision], Study], solver: str
) -> None:
    exact, rounded = (
        read_score_matrix(studies[solver, p]).rows(np.arange(60)) for p in ("float32", "bfloat16")
    )
    assert not np.array_equal(exact, rounded)
    correlations = [np.corrcoef(a, b)[0, 1] for a, b in zip(exact, rounded, strict=True)]
    assert np.mean(correlations) > 0.99
    assert stored_solver(studies[solver, "bfloat16"], "mlp").precision == "bfloat16"


@pytest.mark.parametrize("solver", SOLVERS)
def test_live_scores_are_the_stored_ones(
    studies: dict[tuple[str, Precision], Study], solver: str
) -> None:
    study = studies[solver, "bfloat16"]
    loaded, arrays = load(study.root, "mlp"), read_stacked_arrays(study, "test")
    for test in (0, 7):
        found = loaded.scores({name: array[test : test + 1] for name, array in arrays.items()})[0]
        stored = read_score_matrix(study).rows(np.array([test]))[0]
        assert np.abs(found - stored).max() < 0.1 * np.abs(stored).max()
        assert np.corrcoef(found, stored)[0, 1] > 0.99


def test_predictions_and_weights_stay_in_float32(
    studies: dict[tuple[str, Precision], Study],
) -> None:
    exact, rounded = (studies["primal", p] for p in ("float32", "bfloat16"))
    for split in ("train", "test"):
        a, b = (layout.outputs_file(s.root, "mlp", 0, split) for s in (exact, rounded))
        assert a.read_bytes() == b.read_bytes()


def test_outputs_come_back_in_float32_and_close(
    studies: dict[tuple[str, Precision], Study],
) -> None:
    study = studies["primal", "bfloat16"]
    model = load_checkpoint(study, "mlp", 0, "cpu")
    batch = next(batches_of(study, "train", "cpu", 16)())
    plain, rounded = task_at(study, "mlp", 0), attributed_task(study, "mlp", 0)
    seen: list[torch.dtype] = []
    layer = next(m for m in model.modules() if isinstance(m, torch.nn.Conv2d))
    handle = layer.register_forward_hook(lambda _, __, result: seen.append(result.dtype))
    pairs = [
        (plain.model_output, rounded.model_output),
        (plain.output_named("class:{}", (3,)).value, rounded.output_named("class:{}", (3,)).value),
    ]
    for exact, other in pairs:
        with torch.no_grad():
            a, b = exact(model, batch), other(model, batch)
        assert b.dtype == torch.float32
        assert not torch.equal(a, b)
        torch.testing.assert_close(a, b, rtol=0.05, atol=0.05)
    handle.remove()
    assert seen == [torch.float32, torch.bfloat16] * 2
    with torch.no_grad():
        weights = [t.outputs[0].weight(model, batch) for t in (plain, rounded)]
    assert torch.equal(*weights)


def test_another_precision_is_other_scores_and_float32_keeps_its_fingerprint(
    studies: dict[tuple[str, Precision], Study],
) -> None:
    from dataclasses import replace

    study = studies["primal", "float32"]
    solver = stored_solver(study, "mlp")
    of = [
        attribution_fingerprint(study, "mlp", 0, replace(solver, precision=precision))
        for precision in ROUNDING
    ]
    assert of[0] != of[1]
