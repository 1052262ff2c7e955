"""What the models of an algorithm predict, and the seeds they are trained with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine import store
from engine.attribution.ensemble import checkpoint_mean, combined
from engine.attribution.logit_gap import best_wrong_classes, gaps_to
from engine.attribution.softmax import margins, softmax
from engine.models.hf_folder import INDEX, find_folder, folder_of, has_weights, weight_files
from engine.store import layout
from engine.store.cache import read_column_names
from engine.store.errors import CheckpointError
from engine.store.layout import SPLITS, Split
from engine.store.rows import ranges
from engine.store.spec import AlgorithmSpec
from engine.study.examples import read_columns
from engine.study.names import resolve_algorithm
from engine.study.reader import StudyReader

if TYPE_CHECKING:
    import pandas as pd

BLOCK_BYTES = 2**25
MARGIN = "margin"
"""Name of the output that is the log-odds of an example's label."""


def checkpoint_seed(study: StudyReader, checkpoint: int) -> int:
    """Seed of a checkpoint; the same for all algorithms, so that they can be compared in pairs."""
    return int(store.fingerprint_of("seed", study.spec.seed, checkpoint)[:7], 16)


def user_file(study: StudyReader, path: str) -> Path:
    """A file named in study.toml; its path is relative to the study's folder."""
    return study.root / Path(path).expanduser()


def start_of(study: StudyReader, spec: AlgorithmSpec) -> Path | None:
    """What training starts from: a file of weights or a folder of a model; None: random weights.

    Raises:
        SpecError: The folder of the architecture is missing.
    """
    if spec.initial_weights:
        return user_file(study, spec.initial_weights)
    named = folder_of(spec.architecture)
    if named is None or not spec.architecture_options.get("pretrained", True):
        return None
    library, name = named
    folder = find_folder(name, study.root, library)
    return folder if has_weights(folder) else None


def only_file(path: Path) -> Path:
    """The file of weights that a path names: itself, or the only one in a model's folder.

    Raises:
        CheckpointError: A folder has none, or several.
    """
    if not path.is_dir():
        return path
    files = weight_files(path)
    if len(files) > 1:
        raise CheckpointError(
            f"{path} holds its weights in {len(files)} parts: `dataloupe convert "
            f"{path / INDEX} ONE.safetensors` joins them: name that instead."
        )
    return files[0]


def has_predictions(study: StudyReader, algorithm: str) -> bool:
    """Whether the predictions of both splits are built."""
    return all(layout.predictions_file(study.root, algorithm, split).exists() for split in SPLITS)


def prediction_columns(study: StudyReader, algorithm: str) -> list[str]:
    """Names of the columns of the predictions; none before they are built."""
    if not has_predictions(study, algorithm):
        return []
    return list(read_column_names(layout.predictions_file(study.root, algorithm, "test")))


def read_predictions(
    study: StudyReader, split: Split, algorithm: str | None = None
) -> pd.DataFrame:
    """`predicted` and `output`, the mean model output; one row per example.

    A classification task also gives `correct` and `confidence`, the probability of the predicted
    class; its `output` is the margin, the log-odds of the true label. All follow from the mean of
    the checkpoints' records (engine.attribution.ensemble).
    """
    path = layout.predictions_file(study.root, resolve_algorithm(study, algorithm), split)
    table: pd.DataFrame = store.read_table(path).to_pandas()
    return table


def read_probabilities(
    study: StudyReader, split: Split, row: int, algorithm: str | None = None
) -> np.ndarray:
    """Probability of every class, from the mean logits: float64 `[n_classes]`."""
    return softmax(read_mean_logits(study, split, resolve_algorithm(study, algorithm), row))


def read_mean_logits(
    study: StudyReader, split: Split, algorithm: str, rows: int | slice | np.ndarray = slice(None)
) -> np.ndarray:
    """Mean logits of the checkpoints on all or some examples: float64 `[..., n_classes]`."""
    shards = _outputs_of_each(study, split, algorithm)
    return checkpoint_mean(shard["logits"][rows] for shard in shards)


def read_mean_records(
    study: StudyReader, split: Split, algorithm: str, rows: slice | np.ndarray = slice(None)
) -> dict[str, np.ndarray]:
    """Mean over the checkpoints of what is kept of all or some examples: float64 `[n, ...]` by
    name. Of whole numbers it is what most of them give.

    Embeddings are not part of it, because checkpoints have different ones.
    """
    shards = _outputs_of_each(study, split, algorithm)
    names = [name for name in shards[0] if name != "embeddings"]
    return {name: combined(shard[name][rows] for shard in shards) for name in names}


def record_blocks(
    study: StudyReader, split: Split, algorithm: str, name: str
) -> Iterator[tuple[slice, list[np.ndarray]]]:
    """One of the records of all examples, as many at a time as take `BLOCK_BYTES` in float64: the
    rows, and what each checkpoint gives `[rows, ...]`."""
    records = [shard[name] for shard in _outputs_of_each(study, split, algorithm)]
    n, each = len(records[0]), 8 * max(1, int(np.prod(records[0].shape[1:])))
    for block in ranges(range(n), max(1, BLOCK_BYTES // each)):
        rows = slice(block.start, block.stop)
        yield rows, [record[rows] for record in records]


def _outputs_of_each(
    study: StudyReader, split: Split, algorithm: str
) -> list[dict[str, np.ndarray]]:
    """What each checkpoint gives, memory-mapped."""
    return [
        store.read_tensors(layout.outputs_file(study.root, algorithm, checkpoint, split))
        for checkpoint in range(study.checkpoints(algorithm))
    ]


def read_logit_gaps(study: StudyReader, algorithm: str) -> np.ndarray:
    """Logit of the true label minus the largest other, in the mean logits, of the test examples:
    float64 `[n_test]`. It is 0 where the predicted class changes."""
    labels = read_class_numbers(study, "test")
    found = np.empty(len(labels))
    for rows, each in record_blocks(study, "test", algorithm, "logits"):
        mean, own = checkpoint_mean(each), labels[rows]
        found[rows] = gaps_to(mean, own, best_wrong_classes(mean, own))
    return found


def read_margins(study: StudyReader, split: Split, algorithm: str) -> np.ndarray:
    """Margin of each example's label in the mean logits: float64 `[n]`. It is read where it is the
    model output."""
    if study.dataset.output == MARGIN:
        path = layout.predictions_file(study.root, algorithm, split)
        stored: np.ndarray = store.read_table(path, columns=["output"])["output"].to_numpy()
        return stored.astype(np.float64)
    labels = read_class_numbers(study, split)
    found = np.empty(len(labels))
    for rows, each in record_blocks(study, split, algorithm, "logits"):
        found[rows] = margins(checkpoint_mean(each), labels[rows])
    return found


def read_class_numbers(study: StudyReader, split: Split) -> np.ndarray:
    """Number of each example's label among the dataset's classes: int64 `[n]`."""
    labels = read_columns(study, split, ["label"])["label"]
    places = pc.index_in(labels, value_set=pa.array(study.dataset.classes, labels.type))
    found: np.ndarray = places.to_numpy().astype(np.int64)
    return found
