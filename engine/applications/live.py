"""Live queries: predict an example from outside, and attribute the prediction to training data.

A query has two steps. `read_example` decodes what somebody sent, which may be slow or hostile, to
the small arrays that a model takes. `explain` does the rest, and takes equally long for every
example. So the two can run in different processes. Both need torch: they run in a script
(`run_query`), or in workers kept for them (`engine.running.kept_worker.KeptWorker`). Importing this
module does not import torch, so pages can hold queries and results.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from engine import store
from engine.attribution.ensemble import mean_logits
from engine.attribution.scores.factors import combine
from engine.attribution.scores.top_k import top_k_among
from engine.attribution.search.similarity import Embeddings, nearest
from engine.attribution.search.vector_index import candidates_for, index_from_array
from engine.attribution.softmax import margins, softmax
from engine.build.models import load_checkpoint
from engine.build.tasks import task_at, task_of
from engine.data.picture_budget import check_budget
from engine.store import layout
from engine.store.cache import Stamps, stamps_of
from engine.store.errors import DataError, DataloupeError, StoreError
from engine.store.spec import validate_options
from engine.store.text import counted
from engine.study.live_and_maps import read_live, training_feature_shards
from engine.study.models import checkpoint_seed
from engine.study.neighbours import read_embeddings, read_similarity
from engine.study.reader import StudyReader
from engine.study.score_matrices import stored_solver
from engine.tasks import Encoded

if TYPE_CHECKING:
    from torch import nn

    from engine.attribution.trak.new_examples import ExampleFeatures, FeatureExtractor
    from engine.attribution.trak.plan import Plan
    from engine.attribution.trak.solver import Solver
    from engine.tasks import Task

MODEL_BYTES = 2**29
"""Models that predict are kept in memory as long as their weights fit in 512 MiB; those needed for
scores or similarities always are."""
LONGEST_TEXT = 20_000
"""Characters of a text."""
STUDIES_KEPT = 2
"""Algorithms whose models stay loaded, so that two people can ask about different ones in turns."""
KEPT = 500
"""Number of the strongest influences and nearest neighbors in a result."""


Result = TypeVar("Result")


@dataclass(frozen=True)
class Query:
    """An example to predict and attribute.

    Attributes:
        root: The study's folder.
        content: The bytes of a picture file, or a text.
        label: Class whose margin is attributed; None: the predicted one.
    """

    root: Path
    algorithm: str
    content: bytes | str
    label: int | None = None


@dataclass(frozen=True)
class Example:
    """An example as the models take it.

    Attributes:
        thumbnail: The example, re-encoded as a PNG; None if the task has no pictures.
        text: The example itself; None if the task has no texts.
        notes: Changes made to the example before prediction, one sentence each.
        arrays: The model's inputs, one row each.
    """

    thumbnail: bytes | None
    text: str | None
    notes: list[str]
    arrays: dict[str, np.ndarray]


@dataclass(frozen=True)
class ReadQuery:
    """A query whose example is read."""

    root: Path
    algorithm: str
    example: Example
    label: int | None = None


@dataclass(frozen=True)
class QueryResult:
    """The result of a query. Arrays are ordered, strongest or most similar first.

    Attributes:
        thumbnail: The example, re-encoded as a PNG; None if the task has no pictures.
        text: The example itself; None if the task has no texts.
        notes: Changes made to the example before prediction, one sentence each.
        probabilities: Class probabilities, mean over `predicting` checkpoints: `[n_classes]`.
        predicted: The most probable class.
        label: Class whose margin is attributed.
        margin: Its margin, mean over the same checkpoints.
        predicting: Number of checkpoints that predict.
        scoring: Number of checkpoints that the scores are averaged over.
        support, oppose: Training rows, strongest first.
        support_scores, oppose_scores: Their scores.
        support_total, oppose_total: Sums of all scores of that sign.
        similar: Training rows, most similar first. Empty if the model has no embeddings.
        similarities: Their similarities.
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


def run_query(query: Query) -> QueryResult:
    """Predict and attribute an example. The first query of a study takes seconds to load it.

    Raises:
        DataError: The example cannot be used.
        DataloupeError: The study keeps nothing for live queries.
    """
    load(query.root, query.algorithm)
    return explain(ReadQuery(query.root, query.algorithm, read_example(query), query.label))


def read_example(query: Query) -> Example:
    """Decode the example of a query. Raises DataError if it cannot be used or is too large."""
    study = StudyReader.open(query.root)
    dataset, content = study.dataset, query.content
    if isinstance(content, bytes) and content:
        _in_one_line(lambda: check_budget(content, "example 'yours'"))
    elif len(content) > LONGEST_TEXT:
        raise DataError(
            f"The text has {len(content):,} characters, more than {LONGEST_TEXT:,}. Shorten it."
        )
    task = task_of(study)
    options = validate_options(task.options, study.spec.task, layout.spec_file(study.root))
    accepted = _in_one_line(lambda: task.accept(content, options, dataset.encoding))
    encoded = _in_one_line(lambda: task.encode([accepted.row], accepted.options, dataset.encoding))
    return Example(
        thumbnail=_png(encoded),
        text=content if isinstance(content, str) else None,
        notes=accepted.notes,
        arrays=dict(encoded.arrays),
    )


def warm_up_reading(query: Query) -> None:
    """Import everything that `read_example` needs; the content of the query is ignored."""
    task_of(StudyReader.open(query.root))


def explain(query: ReadQuery) -> QueryResult:
    """Predict and attribute an example that `read_example` gave. Raises as `load`."""
    loaded = load(query.root, query.algorithm)
    example = query.example
    arrays = dict(example.arrays)
    outputs = [loaded.evaluate(model, arrays) for model in loaded.models]
    logits = mean_logits(found["logits"] for found in outputs)
    probabilities = softmax(logits[0])
    predicted = int(probabilities.argmax())
    label = predicted if query.label is None else query.label
    arrays["label"] = np.full_like(arrays["label"], label)
    scores = loaded.scores(arrays)
    all_rows = np.arange(scores.shape[1])[None]
    top = top_k_among(scores, all_rows, min(KEPT, scores.shape[1]))
    support, oppose = top.support_index[0], top.oppose_index[0]
    similar, similarities = loaded.nearest([found.get("embeddings") for found in outputs])
    return QueryResult(
        thumbnail=example.thumbnail,
        text=example.text,
        notes=example.notes,
        probabilities=probabilities,
        predicted=predicted,
        label=label,
        margin=float(margins(logits, np.array([label]))[0]),
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


def warm_up(query: Query) -> None:
    """Load everything that `run_query` needs; the content of the query is ignored."""
    load(query.root, query.algorithm)


def _in_one_line(read: Callable[[], Result]) -> Result:
    """Read something of the example, and name it in errors as its owner would."""
    try:
        return read()
    except DataError as error:
        message = str(error).partition("example 'yours': ")[2] or str(error)
        raise DataError(message[0].upper() + message[1:]) from error


def _png(encoded: Encoded) -> bytes | None:
    if not encoded.thumbnails:
        return None
    buffer = io.BytesIO()
    encoded.thumbnails[0].save(buffer, "PNG")
    return buffer.getvalue()


# --- what is loaded once -----------------------------------------------------------------------


@dataclass(frozen=True)
class Kept:
    """The training features of one checkpoint, memory-mapped, and their extractor."""

    extractor: FeatureExtractor
    plan: Plan
    inverse: np.ndarray
    shards: Sequence[ExampleFeatures]


@dataclass(frozen=True)
class Loaded:
    """Everything that queries to a study need.

    Attributes:
        models: The checkpoints that predict, from the first.
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
    checkpoints: list[Kept]
    out_to_loss: np.ndarray
    similarity: dict[str, Any]
    index: Any

    def evaluate(self, model: nn.Module, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs of one model for the example."""
        from engine.training.outputs import evaluate

        return evaluate(self.task, model, arrays, self.study.dataset.encoding, 1, "cpu")

    def scores(self, arrays: dict[str, np.ndarray]) -> np.ndarray:
        """Attributions of the example to every training example, `[1, n_train]`."""
        return self.thresholded(self.unthresholded(arrays))

    def thresholded(self, scores: np.ndarray) -> np.ndarray:
        """Scores after the soft threshold."""
        threshold = np.float32(self.solver.soft_threshold) * scores.std()
        left: np.ndarray = scores - np.clip(scores, -threshold, threshold)
        return left

    def unthresholded(self, arrays: dict[str, np.ndarray]) -> np.ndarray:
        """Scores before the soft threshold, `[1, n_train]`."""
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
        return combine(total, len(self.checkpoints), self.out_to_loss)

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


def load(root: Path, algorithm: str) -> Loaded:
    """Everything that queries need, cached until its files change.

    Raises:
        DataloupeError: The study keeps nothing for live queries. StoreError: It is not built.
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
    output = task_at(study, algorithm, checkpoint).model_output
    return Kept(
        extractor=make_feature_extractor(
            model, output, plan, solver, checkpoint_seed(study, checkpoint)
        ),
        plan=plan,
        inverse=store.read_tensors(path)["inverse"],
        shards=training_feature_shards(study, algorithm, checkpoint),
    )
