"""Evaluate every method on the run bank's test runs, which were not used for any choice.

`quality/quality.json` gets each method's LDS, calibration and coverage, those of baselines, and LDS
by number of checkpoints and runs. `quality/METHOD.safetensors` gets the predicted and actual
outputs of the test runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from engine import store
from engine.attribution.datamodels.run_bank import RunBank
from engine.attribution.evaluation.calibration import NINETY, calibrate
from engine.attribution.evaluation.ceiling import noise_ceiling
from engine.attribution.evaluation.lds import Lds, lds_of_predictions
from engine.attribution.evaluation.preference import Validation, halves, prefer, validation_lds
from engine.attribution.evaluation.quality import (
    Calibration,
    Measured,
    MethodQuality,
    Point,
    Quality,
)
from engine.attribution.scores.dense import DenseScores
from engine.attribution.scores.matrix import Scores
from engine.build.batches import batches_of, mean_out_to_loss, stored_out_to_loss
from engine.build.effects import chance_of_means, fit_effects, seed_noise
from engine.build.models import load_checkpoint
from engine.build.run import Run
from engine.build.stages.bank import bank_fingerprint
from engine.build.stages.datamodels import MOST_TARGETS
from engine.build.stages.removals import removals_fingerprint
from engine.build.stages.search import method_fingerprint
from engine.build.tasks import task_at
from engine.store import layout
from engine.store.layout import DATAMODEL, HYBRID, SPLITS, TRAK
from engine.store.rows import evenly_spread
from engine.store.text import counted
from engine.study.examples import shard_count
from engine.study.groups import group_members
from engine.study.methods import scored_methods
from engine.study.models import checkpoint_seed
from engine.study.reader import StudyReader
from engine.study.removal_runs import read_removal_runs
from engine.study.run_banks import is_tuned, read_bank, read_repeated_runs, wants_bank
from engine.study.score_matrices import read_factor_scores, read_score_matrix, stored_solver

CODE = 6
"""Increment when the same runs would give a different evaluation."""


@dataclass(frozen=True)
class Job:
    """Evaluate one algorithm's methods."""

    root: Path
    algorithm: str
    device: str


def run(run: Run, algorithm: str) -> None:
    """Evaluate an algorithm's methods, unless that is done.

    A stale evaluation is replaced without asking, because no other file depends on it.
    """
    study = run.study
    if not wants_bank(study, algorithm):
        return
    path = layout.quality_file(study.root, algorithm)
    fingerprint = quality_fingerprint(study, algorithm)
    done = path.exists() and store.json_fingerprint(path) == fingerprint
    methods = scored_methods(study, algorithm)
    done = done and all(
        layout.predicted_file(study.root, algorithm, name).exists() for name in methods
    )
    jobs = [] if done else [Job(study.root, algorithm, run.device)]
    run.run_remaining("quality", algorithm, evaluate_methods, jobs, total=1)


def quality_fingerprint(study: StudyReader, algorithm: str) -> str:
    """Fingerprint of the evaluation: the bank, and every method's scores."""
    methods = scored_methods(study, algorithm)
    scores = {method: method_fingerprint(study, algorithm, method) for method in methods}
    return store.fingerprint_of(
        "quality",
        CODE,
        bank_fingerprint(study, algorithm),
        study.spec.subset_runs.runs_per_test_mask,
        scores,
        removals_fingerprint(study, algorithm),
    )


def evaluate_methods(job: Job) -> None:
    """Worker: evaluate every method and the baselines, and write the methods' predictions."""
    study, algorithm = StudyReader.open(job.root), job.algorithm
    fingerprint = quality_fingerprint(study, algorithm)
    bank = read_bank(study, algorithm, train=False)
    validation, test = bank.part("validation"), bank.part("test")
    mean_outputs = bank.part("fit", "validation").test.mean(axis=0)
    members = group_members(study, "test")
    targets = evenly_spread(study.dataset.n_test, MOST_TARGETS)
    on_validation = _rows(validation.test)[targets]
    repeated, removal_runs = (
        read_repeated_runs(study, algorithm),
        read_removal_runs(study, algorithm),
    )
    noise = seed_noise(study, algorithm)
    chance = chance_of_means(repeated, noise)
    found: dict[str, MethodQuality] = {}
    candidates: dict[str, Validation] = {}
    for method in scored_methods(study, algorithm):
        scores = read_score_matrix(study, algorithm, method)
        title, settings = _describe(study, algorithm, method)
        candidates[method] = _validation(
            study, algorithm, method, scores, validation.masks, targets
        )
        predicted = predict(scores, test.masks)
        quality = _evaluate(title, settings, predicted, test, members)
        if halves(len(validation)) is not None:
            lds = validation_lds(candidates[method], on_validation)
            quality = replace(quality, validation_lds=lds)
        # Uncalibrated predictions stay in the scores' unit. Their order is still meaningful.
        slope = 1.0 if quality.calibration is None else quality.calibration.slope.mean
        in_units = _in_output_units(predicted, slope, mean_outputs)
        arrays = {"actual": _rows(test.test), "predicted": in_units}
        if layout.intervals_file(study.root, algorithm, method, 0).exists():
            arrays |= _intervals(study, algorithm, method)
            error = np.abs(arrays["predicted"] - arrays["actual"])
            coverage = float((error < NINETY * arrays["deviation"]).mean())
            quality = replace(quality, coverage=coverage)
        if quality.calibration is not None:
            residuals = (_rows(test.test) - in_units).var(axis=1, dtype=np.float64, ddof=1)
            alpha = float(test.masks.mean())
            effects, arrays["mean_square"] = fit_effects(
                scores, slope, alpha, residuals, chance, noise, removal_runs
            )
            quality = replace(quality, effects=effects)
        store.write_tensors(
            layout.predicted_file(study.root, algorithm, method), arrays, fingerprint
        )
        found[method] = quality
    preferred = prefer(
        {name: candidates[name] for name in sorted(candidates, key=_complexity)}, on_validation
    )
    for name, title, settings, predicted in baselines(study, algorithm, test.masks, job.device):
        quality = _evaluate(title, settings, predicted, test, members)
        found[name] = replace(quality, baseline=True)
    report = Quality(
        masks={part: len(bank.part(part)) for part in ("fit", "validation", "test")},
        seeds=int(test.seeds.min()),
        alpha=float(bank.masks.mean()),
        output=bank.output,
        preferred=preferred,
        methods=dict(sorted(found.items(), key=lambda item: -item[1].lds.mean)),
        checkpoints=list(by_checkpoints(study, algorithm, test)),
        runs=list(by_runs(study, algorithm, bank, job.device)),
        tuning=_trials(study, algorithm),
        ceiling=noise_ceiling(repeated),
    )
    store.write_json(layout.quality_file(study.root, algorithm), report.to_dict(), fingerprint)


def _complexity(method: str) -> tuple[int, str]:
    """Sort key of methods, the simplest first: how much was fitted to the run bank."""
    fitted = {TRAK: 0, DATAMODEL: 2, HYBRID: 3}
    return fitted.get(method, 1), method


def _validation(
    study: StudyReader,
    algorithm: str,
    method: str,
    scores: Scores,
    masks: np.ndarray,
    targets: np.ndarray,
) -> Validation:
    """Predicted outputs of the validation runs, cross-fitted where they chose settings."""
    path = layout.validation_file(study.root, algorithm, method)
    if path.exists():
        return Validation(store.read_tensors(path)["predicted"])
    optimism = 0.0
    if method == TRAK and is_tuned(study, algorithm):
        optimism = store.read_json(layout.tuning_file(study.root, algorithm))["optimism"]
    return Validation(scores.rows(targets) @ masks.T.astype(np.float32), optimism)


def _describe(study: StudyReader, algorithm: str, method: str) -> tuple[str, str]:
    """Return (title, settings)."""
    if method == TRAK:
        solver = stored_solver(study, algorithm)
        settings = (
            f"{counted(study.checkpoints(algorithm), 'checkpoint')}, {solver.kind}, "
            f"λ {solver.damping:g}, t {solver.tempering:g}, threshold {solver.soft_threshold:g}"
        )
        return "TRAK", settings
    about = store.read_json(layout.method_file(study.root, algorithm, method))
    return about["badge"]["method"], about.get("settings", "")


def _trials(study: StudyReader, algorithm: str) -> list[dict[str, float]]:
    if not is_tuned(study, algorithm):
        return []
    return list(store.read_json(layout.tuning_file(study.root, algorithm))["trials"])


def predict(scores: Scores, masks: np.ndarray) -> np.ndarray:
    """Sum of the scores of each mask's training examples, float32 `[n_test, masks]`."""
    total = np.zeros((scores.n_test, len(masks)), np.float32)
    for tile in scores.tiles():
        trains = slice(tile.trains.start, tile.trains.stop)
        total[tile.tests.start : tile.tests.stop] += tile.scores @ masks[:, trains].T.astype(
            np.float32
        )
    return total


def _rows(outputs: np.ndarray) -> np.ndarray:
    """Transpose outputs `[masks, n_test]` to contiguous rows `[n_test, masks]`."""
    return np.ascontiguousarray(outputs.T)


def _in_output_units(predicted: np.ndarray, slope: float, mean_outputs: np.ndarray) -> np.ndarray:
    """Center predictions `[n_test, masks]`, scale them by the slope, and add the mean outputs."""
    changes = slope * (predicted - predicted.mean(axis=1, keepdims=True))
    outputs: np.ndarray = (changes + mean_outputs[:, None]).astype(np.float32)
    return outputs


def _intervals(study: StudyReader, algorithm: str, method: str) -> dict[str, np.ndarray]:
    """The method's own `predicted` and `deviation` for the test runs, `[n_test, masks]` each."""
    shards = range(shard_count(study, "test"))
    stored = [
        store.read_tensors(layout.intervals_file(study.root, algorithm, method, n)) for n in shards
    ]
    return {name: np.concatenate([shard[name] for shard in stored]) for name in stored[0]}


def _evaluate(
    title: str,
    settings: str,
    predicted: np.ndarray,
    test: RunBank,
    members: dict[str, np.ndarray],
) -> MethodQuality:
    actual = _rows(test.test)
    by_group = {
        name: _measured(lds_of_predictions(predicted[mine], actual[mine], resamples=200))
        for name, mine in members.items()
    }
    return MethodQuality(
        title=title,
        settings=settings,
        baseline=False,
        lds=_measured(lds_of_predictions(predicted, actual)),
        validation_lds=None,
        by_group=by_group,
        calibration=_calibration(predicted, actual),
    )


def _calibration(predicted: np.ndarray, actual: np.ndarray) -> Calibration | None:
    found = calibrate(predicted, actual)
    if found is None or found.low <= 0:  # a slope that may be 0 cannot define a unit
        return None
    return Calibration(Measured(found.slope, found.low, found.high), found.r_squared)


def _measured(lds: Lds) -> Measured:
    return Measured(lds.mean, lds.low, lds.high)


# --- baselines ---------------------------------------------------------------------------------


def baselines(
    study: StudyReader, algorithm: str, masks: np.ndarray, device: str
) -> Iterator[tuple[str, str, str, np.ndarray]]:
    """Yield (name, title, settings, predicted outputs `[n_test, masks]`) of simpler methods.

    Both scores are inner products, so the sum over a mask is taken before the product with the test
    examples.
    """
    gradients = _gradient_dot(study, algorithm, masks, device)
    yield "gradient-dot", "Gradient dot product", "1 checkpoint", gradients
    similar = _embedding_similarity(study, algorithm, masks)
    if similar is not None:
        checkpoints = counted(study.checkpoints(algorithm), "checkpoint")
        yield "embedding", "Embedding similarity", checkpoints, similar


def _embedding_similarity(
    study: StudyReader, algorithm: str, masks: np.ndarray
) -> np.ndarray | None:
    """Sum of cosine similarities over each mask and all checkpoints; None without embeddings."""
    total = np.zeros((study.dataset.n_test, len(masks)), np.float32)
    for checkpoint in range(study.checkpoints(algorithm)):
        units = []
        for split in SPLITS:
            outputs = store.read_tensors(
                layout.outputs_file(study.root, algorithm, checkpoint, split)
            )
            if "embeddings" not in outputs:
                return None
            embeddings = np.asarray(outputs["embeddings"], np.float32)
            norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
            units.append(embeddings / np.maximum(norms, 1e-12))
        total += units[1] @ (masks.astype(np.float32) @ units[0]).T
    return total


def _gradient_dot(study: StudyReader, algorithm: str, masks: np.ndarray, device: str) -> np.ndarray:
    """Sum of Q_i ∇f(z_i)·∇f(x) over each mask, with projected gradients of the first checkpoint."""
    import torch

    from engine.attribution.trak.kernel import first_examples
    from engine.attribution.trak.primal import primal_projection
    from engine.attribution.trak.projection import features

    spec = study.spec.trak
    model = load_checkpoint(study, algorithm, 0, device)
    task = task_at(study, algorithm, 0)
    output = task.trained_output
    train, test = (batches_of(study, split, device, spec.batch_size) for split in SPLITS)
    solver = replace(stored_solver(study, algorithm), width=spec.width, proj_dim=spec.proj_dim)
    projection = primal_projection(
        model, output, first_examples(train), solver, checkpoint_seed(study, 0)
    )
    q = stored_out_to_loss(study, algorithm, 0)
    weights = torch.from_numpy(masks * q).to(device)
    total, row = torch.zeros((), device=device), 0
    for block in features(model, output, train(), projection):
        total = total + weights[:, row : row + len(block)] @ block
        row += len(block)
    predicted = [
        block @ total.T for block in features(model, task.model_output, test(), projection)
    ]
    found: np.ndarray = torch.cat(predicted).cpu().numpy()
    return found


# --- by number of checkpoints ------------------------------------------------------------------


def by_checkpoints(study: StudyReader, algorithm: str, test: RunBank) -> Iterator[Point]:
    """Yield the LDS of TRAK with its first 1, 2, 5, 10, 20, … checkpoints, not thresholded."""
    actual, masks = _rows(test.test), test.masks.T.astype(np.float32)
    for count in _counts(study.checkpoints(algorithm)):
        predicted = _predict_with_first(study, algorithm, count, masks)
        yield Point(TRAK, count, _measured(lds_of_predictions(predicted, actual)))


def _counts(most: int) -> list[int]:
    steps = [factor * 10**power for power in range(5) for factor in (1, 2, 5)]
    return [*(step for step in steps if step < most), most]


def _predict_with_first(
    study: StudyReader, algorithm: str, count: int, masks: np.ndarray
) -> np.ndarray:
    """Outputs `[n_test, masks]` predicted with the first `count` checkpoints.

    Args:
        masks: Float32 `[n_train, masks]`.
    """
    solver = stored_solver(study, algorithm)
    weight = mean_out_to_loss(study, algorithm, count, solver)
    if solver.kind == "primal":
        return read_factor_scores(study, algorithm, count, weight).matmat(masks)
    total = np.zeros((study.dataset.n_test, masks.shape[1]), np.float32)
    for checkpoint in range(count):
        dual = store.read_tensors(layout.dual_file(study.root, algorithm, checkpoint))["scores"]
        total += DenseScores([dual]).matmat(masks * weight[:, None]) / np.float32(count)
    return total


# --- by number of runs -------------------------------------------------------------------------


def by_runs(study: StudyReader, algorithm: str, bank: RunBank, device: str) -> Iterator[Point]:
    """Yield the LDS of the hybrid fitted to an eighth, a quarter, a half and all of its masks.

    It is measured on `MOST_TARGETS` test examples, with the hyperparameters chosen on all masks.
    """
    import torch

    from engine.attribution.datamodels import hybrid

    path = layout.method_file(study.root, algorithm, HYBRID)
    if not path.exists():
        return
    about, test = store.read_json(path), bank.part("test")
    settings = hybrid.Settings(about["ridge"], about["flat"], about["noise"])
    targets = evenly_spread(study.dataset.n_test, MOST_TARGETS)
    tau = torch.from_numpy(read_score_matrix(study, algorithm, TRAK).rows(targets)).to(device)
    both = bank.part("fit", "validation")
    for part in (8, 4, 2, 1):
        count = len(both) // part
        if count < 3:
            continue
        masks = torch.from_numpy(both.masks[:count]).to(device)
        outputs = torch.from_numpy(both.test[:count, targets]).to(device)
        mean = tau * hybrid.output_units(tau, masks, outputs, settings.ridge)
        weights = hybrid.fit(mean, masks, outputs, settings).weights.cpu().numpy()
        predicted = weights @ test.masks.T.astype(np.float32)
        measured = _measured(lds_of_predictions(predicted, test.test[:, targets].T))
        yield Point(HYBRID, int(both.seeds[:count].sum()), measured)
