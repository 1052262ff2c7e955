"""Predict the change of every output that unlearning matches, such as class logits.

Changes are means over checkpoints, in units of the output if there are subset runs to calibrate
them. There is one shard per forget set, with the examples that methods learn from and every test
example, so the effect is known before anything is trained.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engine import store
from engine.applications.unlearning.bank_changes import predict_changes_by_bank
from engine.applications.unlearning.rows import matched_of, rows_of
from engine.applications.unlearning.settings import NEWTON_ITERATIONS
from engine.applications.unlearning.sources import FROM_BANK, WITH_NEWTON, Source, check_source
from engine.build.batches import batches_of, mean_out_to_loss, stored_out_to_loss
from engine.build.models import load_checkpoint
from engine.build.retraining import Removal
from engine.build.stages.bank import bank_fingerprint
from engine.build.stages.datamodels import MOST_FOR_UNITS, datamodel_fingerprint
from engine.build.stages.live import live_checkpoint_fingerprint
from engine.build.stages.trak import scores_fingerprint
from engine.build.tasks import samples_of, task_at, task_of
from engine.store import layout
from engine.store.errors import StoreError
from engine.store.layout import HYBRID, TRAK, Split
from engine.store.rows import evenly_spread
from engine.study.examples import by_shard, read_stacked_arrays
from engine.study.live_and_maps import training_feature_files
from engine.study.models import checkpoint_seed
from engine.study.reader import StudyReader
from engine.study.run_banks import read_bank
from engine.study.score_matrices import (
    read_curvature,
    read_features,
    read_score_matrix,
    stored_solver,
)

if TYPE_CHECKING:
    import torch
    from torch import nn

    from engine.attribution.trak.plan import Batch
    from engine.attribution.trak.removal_direction import Logits
    from engine.attribution.trak.solver import Solver

    DirectionOf = Callable[[int, nn.Module], dict[str, torch.Tensor]]
    """(number of a checkpoint, its model) → where its weights go, by parameter name."""

CODE = 2
"""Increment when the predicted changes for the same forget set would differ."""


@dataclass(frozen=True)
class OutputChanges:
    """Predicted changes of what unlearning matches, float32.

    Attributes:
        forget: Changes of the examples to forget, `[k, m]`, ascending rows.
        retain: Changes of the retain examples that methods learn from, `[l, m]`.
        test: Changes of all test examples, `[n_test, m]`.
        path: File of the shard.
    """

    forget: np.ndarray
    retain: np.ndarray
    test: np.ndarray
    path: Path


def predicted_changes(
    study: StudyReader,
    forget: Removal,
    removed: Removal,
    algorithm: str,
    device: str = "cpu",
    source: Source = "trak",
    on_done: Callable[[int, int], None] | None = None,
) -> OutputChanges:
    """Predicted effect of forgetting `removed`, computed once and kept.

    Args:
        forget: The forget set of the audit, which decides the retain examples to learn from.
        removed: The examples that are forgotten: the forget set, or its validation set.
        source: A Newton step (`engine.attribution.newton`); TRAK; datamodels of the class logits
            from a bank that keeps them; the hybrid for the forgotten examples and TRAK for all
            others (`engine.applications.unlearning.bank_changes`); or, `combined`, the mean of the
            hybrid and a Newton step for the forgotten examples and a Newton step for all others.
            The two err in different ways: halves know best what an example does to itself.
        on_done: Called with (checkpoints done, checkpoints).

    Raises:
        StoreError: The study has no TRAK scores yet.
    """
    if not layout.weighting_file(study.root, algorithm).exists():
        raise StoreError(
            f"{study.root} has no scores of {algorithm} to predict from. `dataloupe build "
            f"{study.root}` makes them."
        )
    check_source(study, algorithm, source)
    fingerprint = changes_fingerprint(study, forget, removed, algorithm, source)
    path = layout.logit_changes_file(study.root, algorithm, fingerprint)
    if not path.exists():
        found = {}
        if source != "datamodel":
            found = _compute(study, forget, removed, algorithm, source, device, on_done)
        if source in FROM_BANK:
            from_bank = _by_bank(study, forget, removed, algorithm, source, device)
            if source == "combined":
                both = found["forget_change"], from_bank["forget_change"]
                from_bank = {"forget_change": np.mean(both, axis=0)}
            found |= from_bank
        store.write_tensors(path, found, fingerprint)
    found = store.read_tensors(path, fingerprint)
    return OutputChanges(found["forget_change"], found["retain_change"], found["test_change"], path)


def changes_fingerprint(
    study: StudyReader, forget: Removal, removed: Removal, algorithm: str, source: Source = "trak"
) -> str:
    """Fingerprint of the predicted changes."""
    has_units = layout.method_file(study.root, algorithm, HYBRID).exists()
    return store.fingerprint_of(
        "logit changes",
        CODE,
        scores_fingerprint(study, algorithm),
        datamodel_fingerprint(study, algorithm, HYBRID) if has_units else None,
        list(removed),
        rows_of(study, forget).learned.tolist(),
        [source, bank_fingerprint(study, algorithm) if source in FROM_BANK else None],
        *(["together"] if matched_of(study).together else []),
    )


def _compute(
    study: StudyReader,
    forget: Removal,
    removed: Removal,
    algorithm: str,
    source: Source,
    device: str,
    on_done: Callable[[int, int], None] | None,
) -> dict[str, np.ndarray]:
    arrays = read_stacked_arrays(study, "train")
    matched = task_at(study, algorithm, 0).matched  # of audits (`task_to_compare`)
    assert matched is not None, "the task has nothing to match"
    rows = {"forget": np.array(removed, np.int64), "retain": rows_of(study, forget).learned}
    parts: dict[str, Mapping[str, np.ndarray]] = {
        name: {key: np.asarray(array[some]) for key, array in arrays.items()}
        for name, some in rows.items()
    }
    parts["test"] = read_stacked_arrays(study, "test")
    towards = newton_directions if source in WITH_NEWTON else trak_directions
    along = towards(study, algorithm, removed, device)
    found = predict_output_changes(study, algorithm, along, parts, matched, device, on_done)
    return {f"{name}_change": change for name, change in found.items()}


def _by_bank(
    study: StudyReader,
    forget: Removal,
    removed: Removal,
    algorithm: str,
    source: Source,
    device: str,
) -> dict[str, np.ndarray]:
    """By the hybrid, only the forgotten examples: what leaving out an example does to itself is
    what the runs know best, and each class logit of each example is solved for separately."""
    rows: dict[str, tuple[Split, np.ndarray]] = {"forget": ("train", np.array(removed, np.int64))}
    if source == "datamodel":
        rows["retain"] = "train", rows_of(study, forget).learned
        rows["test"] = "test", np.arange(study.dataset.n_test)
    unit = units(study, algorithm)
    fitted: Source = "datamodel" if source == "datamodel" else "hybrid"
    return {
        f"{name}_change": predict_changes_by_bank(
            study, algorithm, fitted, removed, split, some, unit, device
        )
        for name, (split, some) in rows.items()
    }


def predict_output_changes(
    study: StudyReader,
    algorithm: str,
    along: DirectionOf,
    parts: Mapping[str, Mapping[str, np.ndarray]],
    outputs: Logits,
    device: str = "cpu",
    on_done: Callable[[int, int], None] | None = None,
) -> dict[str, np.ndarray]:
    """Predicted change of any outputs of any examples: the mean over checkpoints.

    Args:
        along: Where the weights of each checkpoint go.
        parts: Name → raw arrays of examples.
        outputs: (model, prepared batch) → `[batch, outputs]`, differentiable.

    Returns:
        Name → float32 `[n, outputs]`.
    """
    from engine.attribution.trak.removal_direction import derivative
    from engine.training.outputs import batches_by_length

    task, encoding = task_of(study), study.dataset.encoding
    total, size = study.checkpoints(algorithm), study.spec.trak.batch_size
    sums: dict[str, np.ndarray] = {}
    for checkpoint in range(total):
        model = load_checkpoint(study, algorithm, checkpoint, device)
        direction = along(checkpoint, model)
        for name, part in parts.items():
            some = batches_by_length(task, part, encoding, size, device)
            change = derivative(model, outputs, some, direction).cpu().numpy() / total
            sums[name] = sums[name] + change if name in sums else change
        if on_done is not None:
            on_done(checkpoint + 1, total)
    return sums


def trak_directions(
    study: StudyReader, algorithm: str, removed: Removal, device: str
) -> DirectionOf:
    """Where TRAK says that the weights go without `removed`, in units of the output."""
    import torch

    from engine.attribution.trak.removal_direction import direction

    solver, rows = stored_solver(study, algorithm), list(removed)
    total, size = study.checkpoints(algorithm), study.spec.trak.batch_size
    weighing = mean_out_to_loss(study, algorithm, total, solver) * units(study, algorithm)
    weights = torch.zeros(study.dataset.n_train)
    weights[rows] = torch.from_numpy(weighing[rows])

    def along(checkpoint: int, model: nn.Module) -> dict[str, torch.Tensor]:
        task = task_at(study, algorithm, checkpoint)
        train = batches_of(study, "train", device, size)
        if solver.samples:
            u, z = _sampled_coefficients(study, algorithm, checkpoint, solver, weights)
        else:
            u = _coefficients(study, algorithm, checkpoint, solver, weights, device)
            z = u[:0]
        sums = [(task.trained_output, u), *zip(samples_of(task, solver), z, strict=True)]
        parts = [direction(model, output, train, some) for output, some in sums]
        return {name: -torch.stack([part[name] for part in parts]).sum(0) for name in parts[0]}

    return along


def newton_directions(
    study: StudyReader, algorithm: str, removed: Removal, device: str
) -> DirectionOf:
    """Where a Newton step moves the weights without `removed`."""
    import torch

    from engine.attribution.newton import newton_step, ridge_of
    from engine.tasks.classification import logits
    from engine.training.optimizer import training_time

    task, recipe = task_of(study), study.algorithms[algorithm]
    n_train = study.dataset.n_train
    gone = torch.zeros(n_train, dtype=torch.bool)
    gone[list(removed)] = True
    ridge = ridge_of(n_train, training_time(recipe, n_train), recipe.weight_decay)

    def loss(model: nn.Module, batch: Batch) -> torch.Tensor:
        return task.loss(model, batch, recipe.label_smoothing)

    def along(checkpoint: int, model: nn.Module) -> dict[str, torch.Tensor]:
        train = batches_of(study, "train", device, study.spec.trak.batch_size)
        return newton_step(model, logits, loss, train, gone, ridge, NEWTON_ITERATIONS)

    return along


def _sampled_coefficients(
    study: StudyReader, algorithm: str, checkpoint: int, solver: Solver, weights: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """u and z of `engine.attribution.trak.removal_direction` where curvature is sampled."""

    from engine.attribution.trak.primal import blocks_of, gram
    from engine.attribution.trak.removal_direction import sampled_coefficients

    blocks = partial(blocks_of, read_features(study, algorithm, checkpoint))
    curvature = partial(blocks_of, read_curvature(study, algorithm, checkpoint))
    return sampled_coefficients(blocks, curvature, gram(curvature()), solver, weights)


def _coefficients(
    study: StudyReader,
    algorithm: str,
    checkpoint: int,
    solver: Solver,
    weights: torch.Tensor,
    device: str,
) -> torch.Tensor:
    """u of `engine.attribution.trak.removal_direction`, from the study's files if it has them."""
    import torch

    from engine.attribution.trak.linear_system import example_weights
    from engine.attribution.trak.primal import blocks_of, gram
    from engine.attribution.trak.removal_direction import (
        dual_coefficients,
        dual_left,
        primal_coefficients,
        primal_left,
        together,
    )

    q = torch.from_numpy(stored_out_to_loss(study, algorithm, checkpoint))
    rows = torch.nonzero(weights)[:, 0]
    if solver.kind == "primal":
        shards = read_features(study, algorithm, checkpoint)
        blocks = partial(blocks_of, shards)
        total = gram(blocks(), solver, q)
        if matched_of(study).together:
            features = torch.cat(
                [
                    torch.from_numpy(np.array(shards[shard][within], np.float32))
                    for shard, _, within in by_shard(rows.numpy())
                ]
            )
            curvature = example_weights(q, solver)
            some = None if curvature is None else curvature[rows]
            joint = together(weights[rows], primal_left(features, total, solver, some))
            weights = weights.index_copy(0, rows, joint)
        return primal_coefficients(blocks, total, solver, q, weights)
    inverse, ridge = _inverse_rows(study, algorithm, checkpoint, solver, q, rows, device)
    some = weights[rows]
    if matched_of(study).together:
        some = together(some, dual_left(inverse[:, rows], ridge()))
    return dual_coefficients(inverse, some)


def _inverse_rows(
    study: StudyReader,
    algorithm: str,
    checkpoint: int,
    solver: Solver,
    q: torch.Tensor,
    rows: torch.Tensor,
    device: str,
) -> tuple[torch.Tensor, Callable[[], float]]:
    """Rows of the dual's inverse, `[k, n_train]`, and what gives its λ, which may take reading all
    training features."""
    import torch

    from engine.attribution.trak.kernel import NO_LIMIT, first_examples
    from engine.attribution.trak.make_plan import plan_gradients
    from engine.attribution.trak.new_examples import (
        dual_inverse,
        dual_ridge,
        kernel_diagonal,
        plan_from_json,
    )

    path = layout.live_inverse_file(study.root, algorithm, checkpoint)
    if path.exists():
        fingerprint = live_checkpoint_fingerprint(study, algorithm, checkpoint)
        kept = store.read_tensors(path, fingerprint)

        def ridge() -> float:
            plan = plan_from_json(store.read_metadata(path)["plan"])
            parts = [
                kernel_diagonal(store.read_tensors(shard, fingerprint), plan)
                for shard in training_feature_files(study, algorithm, checkpoint)
            ]
            return dual_ridge(torch.from_numpy(np.concatenate(parts)), solver, q)

        return torch.from_numpy(kept["inverse"][rows.numpy()]), ridge
    # A model of its own: planning gradients turns its convolutions to channels_last, in which the
    # forward derivatives of group norms fail.
    model = load_checkpoint(study, algorithm, checkpoint, device)
    output = task_at(study, algorithm, checkpoint).trained_output
    seed = checkpoint_seed(study, checkpoint)
    train = batches_of(study, "train", device, study.spec.trak.batch_size)
    plan = plan_gradients(model, output, first_examples(train))
    solved, found = dual_inverse(model, output, train, plan, solver, seed, NO_LIMIT, q)
    return solved.cpu()[rows], lambda: found


def units(study: StudyReader, algorithm: str) -> np.ndarray:
    """Factors that turn TRAK scores into changes of the output, one for each training example.

    Estimated from the run bank (`engine.attribution.datamodels.hybrid`) if there is one; else 1.
    """
    path = layout.method_file(study.root, algorithm, HYBRID)
    if not path.exists():
        return np.ones(study.dataset.n_train, np.float32)
    import torch

    from engine.attribution.datamodels import hybrid

    bank = read_bank(study, algorithm, train=False).part("fit", "validation")
    scores = read_score_matrix(study, algorithm, TRAK)
    rows = evenly_spread(scores.n_test, MOST_FOR_UNITS)
    ridge = float(store.read_json(path)["ridge"])
    tau, masks, outputs = (
        torch.from_numpy(np.ascontiguousarray(array))
        for array in (scores.rows(rows), bank.masks, bank.test[:, rows])
    )
    found: np.ndarray = hybrid.output_units(tau, masks, outputs, ridge).numpy()
    return found


def cost_of_changes(
    study: StudyReader, algorithm: str, forget: Removal, removed: Removal, source: Source = "trak"
) -> int:
    """Example-gradients that `predicted_changes` takes, once for all models, on top of the build.

    At each checkpoint, TRAK takes one pass over the training examples and one over the predicted
    examples. A Newton step takes one over the training examples for each of its iterations, in
    which the derivative along a direction counts as another half. The hybrid takes one more over
    the training examples, and one for each class over the forgotten ones. A datamodel needs only
    the bank.
    """
    if source == "datamodel":
        return 0
    n_train = study.dataset.n_train
    passes = len(removed) + len(rows_of(study, forget).learned) + study.dataset.n_test
    passes += NEWTON_ITERATIONS * n_train * 3 // 2 if source in WITH_NEWTON else n_train
    if source in FROM_BANK:
        passes += n_train + len(study.dataset.classes) * len(removed)
    return study.checkpoints(algorithm) * passes
