"""What live queries need of a study, loaded once."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engine import store
from engine.applications.live.queries import KEPT
from engine.attribution.ensemble import checkpoint_mean
from engine.attribution.scores.factors import combine
from engine.attribution.search.similarity import Embeddings, nearest
from engine.attribution.search.vector_index import candidates_for, index_from_array
from engine.build.models import load_checkpoint
from engine.build.tasks import task_at, task_of
from engine.data.tokens import target_tokens
from engine.store import layout
from engine.store.cache import Stamps, stamps_of
from engine.store.errors import DataloupeError, StoreError
from engine.store.spec import validate_options
from engine.store.text import counted
from engine.study.live_and_maps import read_live, training_feature_shards
from engine.study.models import checkpoint_seed
from engine.study.neighbours import read_embeddings, read_similarity
from engine.study.output_names import NamedOutput
from engine.study.reader import StudyReader
from engine.study.score_matrices import stored_solver

if TYPE_CHECKING:
    from torch import nn

    from engine.attribution.trak.new_examples import ExampleFeatures, FeatureExtractor
    from engine.attribution.trak.plan import Plan
    from engine.attribution.trak.solver import Solver
    from engine.tasks import Task

MODEL_BYTES = 2**29
"""Models that predict are kept in memory as long as their weights fit in 512 MiB; those needed for
scores or similarities always are."""
STUDIES_KEPT = 2
"""Algorithms whose models stay loaded, so that two people can ask about different ones in turns."""

Arrays = dict[str, np.ndarray]
"""One row each."""
Output = tuple[str, tuple[int, ...]]
"""Name of an output or of a family of outputs, and the numbers of its classes or tokens."""


def output_of(study: StudyReader, output: NamedOutput) -> Output:
    """An output of one example (`engine.study.output_names.concrete`), for `Loaded`."""
    dataset, name = study.dataset, output.choice.name
    if output.choice.takes == "tokens":
        return name, tuple(int(number) - 1 for number in output.classes[0].split(","))
    if output.choice.takes == "range":
        return name, tuple(int(number) - 1 for number in output.classes[0].split("-"))
    if output.choice.takes == "text":
        return name, tuple(target_tokens(output.classes, dataset.encoding)[0].ids)
    return name, tuple(dataset.classes.index(name) for name in output.classes)


@dataclass(frozen=True)
class Kept:
    """The training features of one checkpoint, memory-mapped, and their extractor.

    Attributes:
        task: With the context of the checkpoint, and outputs as gradients are taken of them.
    """

    task: Task
    extractor: FeatureExtractor
    plan: Plan
    inverse: np.ndarray
    shards: Sequence[ExampleFeatures]


@dataclass(frozen=True)
class Loaded:
    """Everything that queries to a study need.

    Attributes:
        models: The checkpoints that predict, from the first.
        tasks: The task with the context of each.
        checkpoints: The checkpoints that scores come from, from the first.
        out_to_loss: Tempered mean Q of every training example.
        similarity: The record of the neighbours stage.
        index: The index of embeddings; None if there is none.
    """

    study: StudyReader
    algorithm: str
    task: Task
    options: Any
    solver: Solver
    models: list[nn.Module]
    tasks: list[Task]
    checkpoints: list[Kept]
    out_to_loss: np.ndarray
    similarity: dict[str, Any]
    index: Any

    def evaluate(self, arrays: Arrays) -> list[Arrays]:
        """The records of the example by every model that predicts."""
        from engine.training.outputs import evaluate

        encoding = self.study.dataset.encoding
        return [
            evaluate(task, model, arrays, encoding, 1, "cpu")
            for task, model in zip(self.tasks, self.models, strict=True)
        ]

    def value(self, output: Output, record: Arrays, arrays: Arrays) -> float:
        """An output of the example, for the mean prediction.

        Args:
            record: The mean of the checkpoints' records, `[1, ...]` each.
        """
        of_record = self.task.output_named(*output).from_record
        if of_record is not None:
            return float(of_record(record)[0])
        return float(checkpoint_mean(self._values(output, arrays))[0])

    def _values(self, output: Output, arrays: Arrays) -> Iterator[np.ndarray]:
        import torch

        batch = self._batch(arrays)
        for task, model in zip(self.tasks, self.models, strict=True):
            with torch.no_grad():
                yield task.output_named(*output).value(model, batch).float().numpy()

    def scores(self, arrays: Arrays, output: Output | None = None) -> np.ndarray:
        """Attributions of an output of the example to every training example, `[1, n_train]`.

        Args:
            output: None stands for the default.
        """
        return self.thresholded(self.unthresholded(arrays, [output]))

    def thresholded(self, scores: np.ndarray) -> np.ndarray:
        """Scores `[outputs, n_train]` after the soft threshold."""
        threshold = np.float32(self.solver.soft_threshold) * scores.std(axis=1, keepdims=True)
        left: np.ndarray = scores - np.clip(scores, -threshold, threshold)
        return left

    def unthresholded(self, arrays: Arrays, outputs: Sequence[Output | None]) -> np.ndarray:
        """Scores of some outputs of the example before the soft threshold, `[outputs, n_train]`."""
        from engine.attribution.trak.new_examples import dual_scores, primal_scores

        batch = self._batch(arrays)
        total = np.zeros((len(outputs), self.study.dataset.n_train), np.float32)
        for kept in self.checkpoints:
            parts = [_extractor_of(kept, output).extract(batch) for output in outputs]
            example = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
            if self.solver.kind == "primal":
                total += primal_scores(kept.inverse, kept.shards, example)
            else:
                total += dual_scores(kept.inverse, kept.shards, example, kept.plan)
        return combine(total, len(self.checkpoints), self.out_to_loss)

    def _batch(self, arrays: Arrays) -> dict[str, Any]:
        from engine.training.outputs import read_batch

        return read_batch(self.task, arrays, slice(0, 1), self.study.dataset.encoding, "cpu")

    def nearest(self, embeddings: list[np.ndarray | None]) -> tuple[np.ndarray, np.ndarray]:
        """The training rows most similar to the example, and their similarities."""
        used = self.similarity["checkpoints"]
        parts = [part for part in embeddings[:used] if part is not None]
        if not parts:
            return np.empty(0, np.int32), np.empty(0, np.float32)
        training = read_embeddings(self.study, "train", used, self.algorithm)
        k = min(KEPT, training.shape[0])
        candidates = candidates_for(k, self.similarity)
        query = Embeddings(parts).rows(range(1))
        found = nearest(self.index, training, query, k, candidates)
        exists = found.index[0] >= 0
        return found.index[0][exists], found.similarity[0][exists]


def _extractor_of(kept: Kept, output: Output | None) -> FeatureExtractor:
    """The extractor of an output's gradients; None stands for the default."""
    if output is None:
        return kept.extractor
    return replace(kept.extractor, output=kept.task.output_named(*output).value)


def load(root: Path, algorithm: str) -> Loaded:
    """Everything that queries need, cached until its files change.

    Raises:
        DataloupeError: The study keeps nothing for live queries. StoreError: It is not built, or
            study.toml has fewer checkpoints now.
    """
    study = StudyReader.open(root)
    live = read_live(study, algorithm)
    if not live.checkpoints:
        raise DataloupeError(f"{root} keeps no checkpoint for live queries: {live.reason}.")
    read_similarity(study, algorithm)
    return _loaded(root, algorithm, live_stamps(study, algorithm))


def live_stamps(study: StudyReader, algorithm: str) -> Stamps:
    """Stamps of the files that a query's result depends on."""
    root, live = study.root, read_live(study, algorithm)
    checkpoints = range(study.checkpoints(algorithm))
    return stamps_of(
        [
            layout.spec_file(root),
            layout.dataset_file(root),
            layout.live_file(root, algorithm),
            layout.similarity_file(root, algorithm),
            layout.neighbours_index_file(root, algorithm),
            layout.solver_file(root, algorithm),
            layout.weighting_file(root, algorithm),
            *(layout.checkpoint_file(root, algorithm, m) for m in checkpoints),
            *(layout.live_inverse_file(root, algorithm, m) for m in range(live.checkpoints)),
        ]
    )


@functools.lru_cache(maxsize=STUDIES_KEPT)
def _loaded(root: Path, algorithm: str, stamps: Stamps) -> Loaded:
    study = StudyReader.open(root)
    task = task_of(study)
    similarity = store.read_json(layout.similarity_file(study.root, algorithm))
    live, solver = read_live(study, algorithm), stored_solver(study, algorithm)
    built, named = max(live.checkpoints, similarity["checkpoints"]), study.checkpoints(algorithm)
    if named < built:
        raise StoreError(
            f"study.toml names {counted(named, 'checkpoint')} of {algorithm}, but live queries "
            f"were prepared with {built}. Undo the change, or run `dataloupe build {root} "
            "--rebuild predictions`."
        )
    weights = layout.checkpoint_file(study.root, algorithm, 0).stat().st_size
    fitting = max(live.checkpoints, similarity["checkpoints"], MODEL_BYTES // weights)
    count = min(study.checkpoints(algorithm), fitting)
    models = [load_checkpoint(study, algorithm, m, "cpu") for m in range(count)]
    tasks = [task_at(study, algorithm, m) for m in range(count)]
    index = None
    if similarity["checkpoints"]:
        stored = store.read_tensors(layout.neighbours_index_file(study.root, algorithm))
        index = index_from_array(stored["index"])
    return Loaded(
        study=study,
        algorithm=algorithm,
        task=task,
        options=validate_options(task.options, study.spec.task, layout.spec_file(study.root)),
        solver=solver,
        models=models,
        tasks=tasks,
        checkpoints=[
            _kept(study, algorithm, m, solver, models[m], tasks[m]) for m in range(live.checkpoints)
        ],
        out_to_loss=np.array(
            store.read_tensors(layout.weighting_file(study.root, algorithm))["out_to_loss"]
        ),
        similarity=similarity,
        index=index,
    )


def _kept(
    study: StudyReader,
    algorithm: str,
    checkpoint: int,
    solver: Solver,
    model: nn.Module,
    task: Task,
) -> Kept:
    from engine.attribution.trak.new_examples import make_feature_extractor, plan_from_json
    from engine.tasks.precision import in_precision

    path = layout.live_inverse_file(study.root, algorithm, checkpoint)
    plan = plan_from_json(store.read_metadata(path)["plan"])
    task, seed = in_precision(task, solver.precision), checkpoint_seed(study, checkpoint)
    return Kept(
        task=task,
        extractor=make_feature_extractor(model, task.model_output, plan, solver, seed),
        plan=plan,
        inverse=store.read_tensors(path)["inverse"],
        shards=training_feature_shards(study, algorithm, checkpoint),
    )
