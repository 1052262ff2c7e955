"""Sets of a study that are chosen together, against its whole linear systems."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engine import Study, store
from engine.applications import joint_removal
from engine.applications.joint_removal import MOST, strongest_together
from engine.build.batches import mean_out_to_loss, stored_out_to_loss
from engine.store import layout
from engine.store.errors import DataloupeError, UnknownName
from engine.study.live_and_maps import read_live, training_feature_shards
from engine.study.score_matrices import read_curvature, read_features, stored_solver
from tests.builders.copies import copy_of


def dual_effect(study: Study, algorithm: str, checkpoint: int, test: int) -> Callable[..., float]:
    """φ(x)ᵀ H_S⁻¹ Σ qφ = k(x)ᵀ (W_S K + λI)⁻¹ q_S, with the kernel K of the stored features."""
    import torch

    from engine.attribution.trak.linear_system import example_weights
    from engine.attribution.trak.new_examples import kernel_with, plan_from_json

    solver = stored_solver(study, algorithm)
    path = layout.live_inverse_file(study.root, algorithm, checkpoint)
    plan = plan_from_json(store.read_metadata(path)["plan"])
    shards = training_feature_shards(study, algorithm, checkpoint)
    every = {name: np.concatenate([one[name] for one in shards]) for name in shards[0]}
    kernel = kernel_with(every, every, plan).astype(np.float64)
    found = example_weights(
        torch.from_numpy(stored_out_to_loss(study, algorithm, checkpoint)), solver
    )
    weights = np.ones(len(kernel)) if found is None else found.numpy().astype(np.float64)
    ridge = solver.damping * np.mean(weights * np.diag(kernel))
    scores = store.read_tensors(layout.dual_file(study.root, algorithm, checkpoint))["scores"]
    of_test = kernel @ (weights * scores[test]) + ridge * scores[test]

    def effect(q: np.ndarray, removed: np.ndarray) -> float:
        left, gone = weights.copy(), np.zeros(len(q))
        left[removed], gone[removed] = 0, q[removed]
        matrix = left[:, None] * kernel + ridge * np.eye(len(q))
        return float(of_test @ np.linalg.solve(matrix, gone))

    return effect


def primal_effect(study: Study, algorithm: str, checkpoint: int, test: int) -> Callable[..., float]:
    solver, n = stored_solver(study, algorithm), study.dataset.n_train
    features = np.concatenate([shard[:] for shard in read_features(study, algorithm, checkpoint)])
    curvature = np.concatenate([shard[:] for shard in read_curvature(study, algorithm, checkpoint)])
    rows = curvature.reshape(solver.samples, n, -1).astype(np.float64)  # a single shard
    whole = np.einsum("snp,snq->pq", rows, rows)
    whole += solver.damping * np.diag(whole).mean() * np.eye(len(whole))
    factors = store.read_tensors(layout.factors_file(study.root, algorithm, checkpoint))["factors"]
    of_test = whole @ factors[test]

    def effect(q: np.ndarray, removed: np.ndarray) -> float:
        some = rows[:, removed]
        matrix = whole - np.einsum("snp,snq->pq", some, some)
        return float(of_test @ np.linalg.solve(matrix, features[removed].T @ q[removed]))

    return effect


@pytest.mark.parametrize(
    ("fixture", "side"),
    [
        ("small_study", "support"),
        ("small_study", "oppose"),
        ("text_study", "support"),
        ("squares_study", "support"),
    ],
)
def test_effects_are_those_of_the_whole_system(fixture: str, side: str, request) -> None:
    study: Study = request.getfixturevalue(fixture)
    algorithm, test = next(iter(study.algorithms)), 3
    solver = stored_solver(study, algorithm)
    found = strongest_together(study, test, 10, side=side)
    assert len(set(found.rows)) == 10
    assert found.checkpoints == read_live(study, algorithm).checkpoints
    of_one = primal_effect if solver.kind == "primal" else dual_effect
    effects = [of_one(study, algorithm, m, test) for m in range(found.checkpoints)]
    q = mean_out_to_loss(study, algorithm, study.checkpoints(algorithm), solver).astype(np.float64)
    sign = 1 if side == "support" else -1
    for k in (1, 10):
        expected = sign * np.mean([effect(q, found.rows[:k]) for effect in effects])
        assert found.reached[k - 1] == pytest.approx(expected, rel=0.01)
    assert found.ratio >= 1
    assert (found.reached > 0).all()


def test_curvature_of_both_kinds_is_tested(small_study: Study, squares_study: Study) -> None:
    assert stored_solver(small_study, "mlp").kind != "primal"
    assert stored_solver(squares_study, "unet").samples > 1


def test_a_set_of_one_is_the_strongest(small_study: Study) -> None:
    found = strongest_together(small_study, 5, 1)
    assert found.reached[0] >= found.one_by_one[0]
    assert found.ratio == 1
    assert found.rows[0] == strongest_together(small_study, 5, 12).rows[0]


def test_samples_are_found_in_every_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shard of four examples has their first samples, then their second ones."""
    monkeypatch.setattr(joint_removal, "ROWS_PER_SHARD", 4)
    found = joint_removal._rows_of_samples(6, 2)
    assert found.tolist() == [[0, 4], [1, 5], [2, 6], [3, 7], [8, 10], [9, 11]]


def test_several_predictions_count_by_their_mean(small_study: Study) -> None:
    ids = small_study.table("test")["id"]
    together = strongest_together(small_study, [2, str(ids[7])], 8)
    assert np.array_equal(together.rows, strongest_together(small_study, [2, 7], 8).rows)
    assert set(together.rows) != set(strongest_together(small_study, 2, 8).rows)


def test_examples_that_an_algorithm_never_saw_are_never_chosen(corrected_study: Study) -> None:
    for algorithm in corrected_study.algorithms:
        without = corrected_study.algorithms[algorithm].without
        if not without:
            continue
        out = mean_out_to_loss(
            corrected_study, algorithm, 1, stored_solver(corrected_study, algorithm)
        )
        assert (out == 0).any()
        found = strongest_together(corrected_study, 0, 20, algorithm)
        assert (out[found.rows] != 0).all()
        return
    raise AssertionError("the study has no algorithm that leaves examples out")


@pytest.mark.parametrize(
    ("test", "size", "said"),
    [
        (0, 0, "size must be from 1 to 299, not 0"),
        (0, MOST + 1, "size must be from 1 to 299"),
        ("nobody", 3, "nobody"),
    ],
)
def test_what_cannot_be_asked(small_study: Study, test: int | str, size: int, said: str) -> None:
    with pytest.raises(DataloupeError, match=said):
        strongest_together(small_study, test, size)


def test_a_study_without_live_checkpoints_says_so(small_study: Study, tmp_path: Path) -> None:
    study = copy_of(small_study, tmp_path / "study")
    path = layout.live_file(study.root, "mlp")
    content = {k: v for k, v in store.read_json(path).items() if not k.startswith("dataloupe.")}
    store.write_json(path, {**content, "checkpoints": 0, "reason": "set in study.toml"}, "f")
    with pytest.raises(DataloupeError, match=r"keeps no checkpoint of mlp .* set in study.toml"):
        strongest_together(study, 0, 3)


def test_an_unknown_algorithm(small_study: Study) -> None:
    with pytest.raises(UnknownName):
        strongest_together(small_study, 0, 3, "nobody")
