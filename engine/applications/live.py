"""A live query: what the models say of an example from outside, and which training data say so.

`ask` runs where torch may be: in a worker that is kept for it
(`engine.running.processes.KeptWorker`), or
in a script. Importing this module does not import torch, so pages can hold questions and answers.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engine import store
from engine.attribution.scores.factors import combine
from engine.attribution.scores.top_k import top_k_among
from engine.attribution.search.similarity import Embeddings, nearest
from engine.attribution.search.vector_index import candidates_for, index_from_array
from engine.attribution.softmax import softmax
from engine.build.models import load_checkpoint
from engine.store import layout
from engine.store.cache import Stamp, stamp_of
from engine.store.errors import DataError, DataloupeError
from engine.store.spec import validate_options
from engine.study.live_and_maps import read_live, trace_shards
from engine.study.models import checkpoint_seed
from engine.study.neighbours import read_embeddings, read_similarity
from engine.study.reader import StudyReader
from engine.study.score_matrices import stored_solver
from engine.tasks import Accepted, Encoded, load_task

if TYPE_CHECKING:
    from torch import nn

    from engine.attribution.trak.new_examples import ExampleFeatures, FeatureExtractor
    from engine.attribution.trak.plan import Plan
    from engine.attribution.trak.solver import Solver
    from engine.tasks import Task

MODEL_BYTES = 2**29
"""Models that predict are kept in memory as long as their weights fit in 512 MiB; those that
scores or likeness need are always."""
KEPT = 500
"""How many of the strongest influences and nearest neighbours an answer holds."""


@dataclass(frozen=True)
class Question:
    """What is asked.

    Attributes:
        root: The study's folder.
        content: A picture file's bytes, or a text.
        label: Class whose margin is attributed; None: the predicted one.
    """

    root: Path
    algorithm: str
    content: bytes | str
    label: int | None = None


@dataclass(frozen=True)
class Answer:
    """What is answered. Arrays are ordered, strongest or most similar first.

    Attributes:
        thumbnail: The example as a PNG made by us; None where the task has no pictures.
        text: The example itself where it is text.
        notes: What had to be done to the example, one sentence each.
        probabilities: Of every class, mean over `predicting` checkpoints: `[n_classes]`.
        predicted: The likeliest class.
        label: Class whose margin is attributed.
        margin: Its margin, mean over the same checkpoints.
        predicting: How many checkpoints predict.
        scoring: How many checkpoints the scores are the mean over.
        support, oppose: Training rows; their scores; the sums of all scores of that sign.
        similar: Training rows; their similarities. Empty where the model gives no embeddings.
    """

    thumbnail: bytes | None
    text: str | None
    notes: list[str]
    probabilities: np.ndarray
    predicted: int
    label: int
    margin: float
    predicting: int
    scoring: int
    support: np.ndarray
    support_scores: np.ndarray
    support_total: float
    oppose: np.ndarray
    oppose_scores: np.ndarray
    oppose_total: float
    similar: np.ndarray
    similarities: np.ndarray


def ask(question: Question) -> Answer:
    """Answer a question. The first of a study takes seconds, as everything is loaded.

    Raises:
        DataError: The example cannot be used. DataloupeError: The study keeps nothing for this.
    """
    loaded = load(question.root, question.algorithm)
    accepted, encoded = _encode(loaded, question.content)
    arrays = dict(encoded.arrays)
    outputs = [loaded.evaluate(model, arrays) for model in loaded.models]
    probabilities = np.mean([softmax(found["logits"][0]) for found in outputs], axis=0)
    predicted = int(probabilities.argmax())
    label = predicted if question.label is None else question.label
    arrays["label"] = np.full_like(arrays["label"], label)
    margins = [loaded.evaluate(model, arrays)["output"][0] for model in loaded.models]
    scores = loaded.scores(arrays)
    everybody = np.arange(scores.shape[1])[None]
    top = top_k_among(scores, everybody, min(KEPT, scores.shape[1]))
    support, oppose = top.support_index[0], top.oppose_index[0]
    similar, similarities = loaded.nearest([found.get("embeddings") for found in outputs])
    return Answer(
        thumbnail=_png(encoded),
        text=question.content if isinstance(question.content, str) else None,
        notes=accepted.notes,
        probabilities=probabilities,
        predicted=predicted,
        label=label,
        margin=float(np.mean(margins)),
        predicting=len(loaded.models),
        scoring=len(loaded.checkpoints),
        support=support[support >= 0],
        support_scores=top.support_score[0][support >= 0],
        support_total=float(scores.sum(where=scores > 0)),
        oppose=oppose[oppose >= 0],
        oppose_scores=top.oppose_score[0][oppose >= 0],
        oppose_total=float(scores.sum(where=scores < 0)),
        similar=similar,
        similarities=similarities,
    )


def warm_up(question: Question) -> None:
    """Load what `ask` needs; what the question is about does not matter."""
    load(question.root, question.algorithm)


def _encode(loaded: Loaded, content: bytes | str) -> tuple[Accepted, Encoded]:
    dataset = loaded.study.dataset
    try:
        accepted = loaded.task.accept(content, loaded.options, dataset.encoding)
        return accepted, loaded.task.encode([accepted.row], accepted.options, dataset.encoding)
    except DataError as error:
        words = str(error).partition("example 'yours': ")[2] or str(error)
        raise DataError(words[0].upper() + words[1:]) from error


def _png(encoded: Encoded) -> bytes | None:
    if not encoded.thumbnails:
        return None
    buffer = io.BytesIO()
    encoded.thumbnails[0].save(buffer, "PNG")
    return buffer.getvalue()


# --- what is loaded once -----------------------------------------------------------------------


@dataclass(frozen=True)
class Kept:
    """One checkpoint's training side, memory-mapped."""

    extractor: FeatureExtractor
    plan: Plan
    inverse: np.ndarray
    shards: Sequence[ExampleFeatures]


@dataclass(frozen=True)
class Loaded:
    """Everything of a study that answers need.

    Attributes:
        models: The checkpoints that predict, from the first.
        checkpoints: Those that scores come from, from the first.
        out_to_loss: Tempered mean Q of every training example.
        similarity: What the neighbours stage says; its index, where there is one.
    """

    study: StudyReader
    algorithm: str
    task: Task
    options: Any
    solver: Solver
    models: list[nn.Module]
    checkpoints: list[Kept]
    out_to_loss: np.ndarray
    similarity: dict[str, Any]
    index: Any

    def evaluate(self, model: nn.Module, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What one model says of the example."""
        from engine.training.outputs import evaluate

        return evaluate(self.task, model, arrays, self.study.dataset.encoding, 1, "cpu")

    def scores(self, arrays: dict[str, np.ndarray]) -> np.ndarray:
        """Attributions of the example's label to every training example, `[1, n_train]`."""
        from engine.attribution.trak.new_examples import dual_scores, primal_scores
        from engine.training.outputs import read_batch

        batch = read_batch(self.task, arrays, slice(0, 1), self.study.dataset.encoding, "cpu")
        total = np.zeros((1, self.study.dataset.n_train), np.float32)
        for kept in self.checkpoints:
            example = kept.extractor.extract(batch)
            if self.solver.kind == "primal":
                total += primal_scores(kept.inverse, kept.shards, example)
            else:
                total += dual_scores(kept.inverse, kept.shards, example, kept.plan)
        scores = combine(total, len(self.checkpoints), self.out_to_loss)
        threshold = np.float32(self.solver.soft_threshold) * scores.std()
        scores -= np.clip(scores, -threshold, threshold)
        return scores

    def nearest(self, embeddings: list[np.ndarray | None]) -> tuple[np.ndarray, np.ndarray]:
        """The training rows most similar to the example, and how similar they are."""
        used = self.similarity["checkpoints"]
        parts = [part for part in embeddings[:used] if part is not None]
        if not parts:
            return np.empty(0, np.int32), np.empty(0, np.float32)
        training = read_embeddings(self.study, "train", used, self.algorithm)
        k = min(KEPT, training.shape[0])
        candidates = candidates_for(k, self.similarity)
        query = Embeddings(parts).rows(range(1))
        found = nearest(self.index, training, query, k, candidates)
        there = found.index[0] >= 0
        return found.index[0][there], found.similarity[0][there]


def load(root: Path, algorithm: str) -> Loaded:
    """Everything that answers need, kept for the next question as long as its files stay.

    Raises:
        DataloupeError: The study keeps nothing for live queries. StoreError: It is not built.
    """
    study = StudyReader.open(root)
    live = read_live(study, algorithm)
    if not live.checkpoints:
        raise DataloupeError(f"{root} keeps no checkpoint for live queries: {live.reason}.")
    read_similarity(study, algorithm)
    files = [
        layout.spec_file(root),
        layout.dataset_file(root),
        layout.live_file(root, algorithm),
        layout.similarity_file(root, algorithm),
        layout.neighbours_index_file(root, algorithm),
        layout.solver_file(root, algorithm),
        layout.weighting_file(root, algorithm),
        *(layout.checkpoint_file(root, algorithm, m) for m in range(study.checkpoints(algorithm))),
        *(layout.live_inverse_file(root, algorithm, m) for m in range(live.checkpoints)),
    ]
    return _loaded(root, algorithm, tuple(map(stamp_of, files)))


@functools.lru_cache(maxsize=1)
def _loaded(root: Path, algorithm: str, stamps: tuple[Stamp, ...]) -> Loaded:
    study = StudyReader.open(root)
    task = load_task(study.dataset.task)
    similarity = store.read_json(layout.similarity_file(study.root, algorithm))
    live, solver = read_live(study, algorithm), stored_solver(study, algorithm)
    weights = layout.checkpoint_file(study.root, algorithm, 0).stat().st_size
    fitting = max(live.checkpoints, similarity["checkpoints"], MODEL_BYTES // weights)
    count = min(study.checkpoints(algorithm), fitting)
    models = [load_checkpoint(study, algorithm, m, "cpu") for m in range(count)]
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
        checkpoints=[
            _kept(study, algorithm, m, solver, models[m]) for m in range(live.checkpoints)
        ],
        out_to_loss=np.array(
            store.read_tensors(layout.weighting_file(study.root, algorithm))["out_to_loss"]
        ),
        similarity=similarity,
        index=index,
    )


def _kept(
    study: StudyReader, algorithm: str, checkpoint: int, solver: Solver, model: nn.Module
) -> Kept:
    from engine.attribution.trak.new_examples import make_feature_extractor, plan_from_json

    path = layout.live_inverse_file(study.root, algorithm, checkpoint)
    plan = plan_from_json(store.read_metadata(path)["plan"])
    output = load_task(study.dataset.task).model_output
    return Kept(
        extractor=make_feature_extractor(
            model, output, plan, solver, checkpoint_seed(study, checkpoint)
        ),
        plan=plan,
        inverse=store.read_tensors(path)["inverse"],
        shards=trace_shards(study, algorithm, checkpoint),
    )
