"""The studies that `benchmarks.diffusion` measures, how large they are, and other tools' scores.

`DATALOUPE_DIFFUSION_SIZE` is `whole`, `short` (fewer pictures and smaller models) or `tiny`
(whether every part runs; the numbers mean nothing).
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks._report import log
from benchmarks._server import ROOT
from benchmarks._study import built
from benchmarks.text_lds import gradient_cosine
from benchmarks.text_study import embedding_cosines, random_scores
from engine import Study, store
from engine.attribution.trak.kernel import first_examples
from engine.attribution.trak.make_plan import plan_gradients
from engine.attribution.trak.make_projection import make_projection
from engine.attribution.trak.projection import features, project
from engine.build.batches import batches_of
from engine.build.build import build_checkpoints
from engine.build.generating import generate
from engine.build.models import load_checkpoint
from engine.build.tasks import task_at
from engine.data.sources import load_source
from engine.data.templates import spec_from_template
from engine.store import layout
from engine.store.layout import SPLITS
from engine.store.spec import DataSpec
from engine.study.examples import read_stacked_arrays
from engine.study.models import checkpoint_seed
from engine.study.score_matrices import read_factor_scores

ALGORITHM = "unet"
MARK, MARKED_SHARE = 8, 0.05
"""Side of a watermark in pixels, and the share of training pictures that carry it."""
PROJECTED = 2048
"""traker's default."""


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        folder: Of studies and results, below `.bench`.
        train, held_out: How many pictures of each split.
        width, epochs: Of the models.
        checkpoints: Of the study, and how many of them `ours` is measured with.
        masks: Of the run bank.
        marked_of: How many training pictures the study with a watermark has; 5 % carry it.
        made: How many pictures each checkpoint makes.
        frames: How many steps of their way are kept.
        epochs_of_classifier: Of the classifier that judges them.
        timed: Rows in a round of timing.
        judged: How many pictures the classifier judges.
        tiny: Whether numbers mean nothing.
        changed: How many pictures are made again without their support.
        removed: How many training pictures are their support.
        replayed, random_removals: Pictures whose scores replay gives, and removals that judge them.
    """

    folder: str = "diffusion"
    train: int = 5000
    held_out: int = 200
    width: int = 24
    epochs: int = 25
    checkpoints: tuple[int, ...] = (1, 3)
    masks: int = 64
    marked_of: int = 5000
    made: int = 100
    frames: int = 8
    epochs_of_classifier: int = 15
    timed: int = 512
    judged: int = 300
    tiny: bool = False
    changed: int = 20
    removed: int = 200
    replayed: int = 6
    random_removals: int = 32


WHOLE = Size()
SIZES = {
    "whole": WHOLE,
    "short": replace(
        WHOLE,
        folder="diffusion-short",
        train=600,
        held_out=60,
        width=16,
        epochs=25,
        masks=48,
        made=20,
        timed=128,
        removed=24,
        random_removals=16,
    ),
    "tiny": Size(
        folder="diffusion-tiny",
        train=60,
        held_out=8,
        width=8,
        epochs=2,
        checkpoints=(1, 2),
        masks=15,
        marked_of=60,
        made=4,
        frames=3,
        epochs_of_classifier=1,
        timed=32,
        judged=10,
        tiny=True,
        changed=3,
        removed=6,
        replayed=4,
        random_removals=4,
    ),
}
SIZE = SIZES[os.environ.get("DATALOUPE_DIFFUSION_SIZE", "whole")]
MOST = SIZE.checkpoints[-1]


def folder() -> Path:
    """Where results are kept."""
    return ROOT / ".bench" / SIZE.folder


# --- studies --------------------------------------------------------------------------------------


def trained_study() -> Study:
    """The checkpoints, with held-out pictures as test split and without a run bank."""
    return built(f"{SIZE.folder}/trained", _spec(_limited()))


def example_study() -> Study:
    """The checkpoints of the example as it ships; of the size `tiny`, its own."""
    if SIZE.tiny:
        return trained_study()
    path = ROOT / ".bench" / WHOLE.folder / "example"
    if not path.exists():
        Study.create(path, spec_from_template("diffusion"))
    study = Study.open(path)
    build_checkpoints(study)
    return Study.open(path)


def made_study() -> Study:
    """What they make, beside held-out pictures, with a run bank."""
    path, trained = folder() / "made", trained_study()
    if not (path / "study.toml").exists():
        log("making pictures")
        generate(trained, path, SIZE.made, frames=SIZE.frames)
        spec = path / "study.toml"
        spec.write_text(
            f"{spec.read_text(encoding='utf-8')}\n[subset_runs]\nmasks = {SIZE.masks}\n"
            "seeds = 2\nremovals = 0\n",
            encoding="utf-8",
        )
    study = Study.open(path)
    study.build()
    return Study.open(path)


def marked_study() -> Study:
    """Training pictures of which a few carry a watermark, as all test pictures do."""
    path = folder() / "marked.npz"
    data = DataSpec(source="fashion-mnist", train_limit=SIZE.marked_of, test_limit=SIZE.held_out)
    source = load_source(data, folder())
    content: dict[str, np.ndarray] = {}
    for split, rows in (("train", source.train), ("test", source.test)):
        pictures = np.stack([_decoded(one["bytes"]) for one in rows["input"]])
        marked = marked_rows(len(pictures)) if split == "train" else np.arange(len(pictures))
        pictures[marked] = _with_mark(pictures[marked])
        content[f"{split}_input"] = pictures
        content[f"{split}_label"] = np.array(source.classes)[np.array(rows["label"])]
    folder().mkdir(parents=True, exist_ok=True)
    np.savez(path, allow_pickle=False, **content)
    return built(f"{SIZE.folder}/marked", _spec(f'source = "{path}"\n', SIZE.marked_of))


def _decoded(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as picture:
        return np.array(picture)


def marked_rows(n: int) -> np.ndarray:
    """Rows of the training pictures with a watermark."""
    return np.random.default_rng(0).choice(n, max(2, round(MARKED_SHARE * n)), replace=False)


def _with_mark(pictures: np.ndarray) -> np.ndarray:
    """A checkered square in the upper left corner of pictures `[n, h, w]`."""
    found = pictures.copy()
    places = np.add.outer(np.arange(MARK), np.arange(MARK)) % 2
    found[:, 1 : 1 + MARK, 1 : 1 + MARK] = 255 * places
    return found


def _limited() -> str:
    limits = f"train_limit = {SIZE.train}\ntest_limit = {SIZE.held_out}\n"
    return f'source = "fashion-mnist"\n{limits}'


def _spec(source: str, train: int = SIZE.train) -> str:
    found = spec_from_template("diffusion")
    changes = {
        'source = "fashion-mnist"\n': source,
        "width = 24": f"width = {SIZE.width}",
        "epochs = 25": f"epochs = {SIZE.epochs}",
        "checkpoints = 2": f"checkpoints = {MOST}",
        "batch_size = 64": f"batch_size = {min(64, max(16, train // 20))}",
        "[trak]\n": "[trak]\ndamping = 0.1\ntempering = 1.0\nsoft_threshold = 0.0\n",
    }
    for old, new in changes.items():
        if old not in found:
            raise ValueError(f"the template 'diffusion' no longer has {old!r}")
        found = found.replace(old, new, 1)
    return found.partition("# To measure how good scores are")[0]


# --- methods --------------------------------------------------------------------------------------


def ours(study: Study, count: int) -> np.ndarray:
    """TRAK of the first checkpoints; Q is 1."""
    q = np.ones(study.dataset.n_train, np.float32)
    scores = read_factor_scores(study, ALGORITHM, count, q)
    return scores.rows(np.arange(scores.n_test))


def pixels(study: Study) -> np.ndarray:
    """Minus the distance of pixels."""
    units = [np.array(read_stacked_arrays(study, s)["input"][:], np.float32) for s in SPLITS]
    train, test = (torch.from_numpy(one.reshape(len(one), -1) / 255) for one in units)
    found: np.ndarray = -torch.cdist(test, train).numpy()
    return found


def likeness(study: Study, count: int) -> np.ndarray:
    """Cosine of the U-Nets' embeddings, mean over the first checkpoints."""
    return embedding_cosines(study, count)


def journey(study: Study) -> np.ndarray:
    """TRAK along the way of pictures that were made, as Georgiev et al. (2023) have it: of each
    kept step, the error at its timestep of the picture that the model made out there, summed over
    steps; at traker's defaults, 2,048 features and no damping. Only of the first checkpoint's own
    pictures; rows of others are 0.

    Where there are fewer training pictures than features, the Gram matrix has no inverse. The
    pseudo-inverse, which is used, is then better than what traker computes.
    """
    model = load_checkpoint(study, ALGORITHM, 0, "cpu")
    task, batch_size = task_at(study, ALGORITHM, 0), study.spec.trak.batch_size
    train = batches_of(study, "train", "cpu", batch_size)
    plan = plan_gradients(model, task.model_output, first_examples(train))
    projection = make_projection(plan, model, PROJECTED, None, checkpoint_seed(study, 0))
    known = torch.cat(list(features(model, task.model_output, train(), projection))).double()
    kept = store.read_tensors(layout.trajectories_file(study.root))
    rows = own_rows(study, 0)
    arrays = {name: np.array(a[rows]) for name, a in read_stacked_arrays(study, "test").items()}
    total = torch.zeros(len(rows), known.shape[1], dtype=torch.float64)
    for place, timestep in enumerate(kept["timesteps"].tolist()):
        seen = {**arrays, "input": np.array(kept["denoised"][rows, place])}
        raw = {name: torch.from_numpy(array) for name, array in seen.items()}
        batch = task.prepare(raw, study.dataset.encoding)
        output = task.output_named("timesteps:{}", (timestep - 1, timestep - 1)).value
        total += project(model, output, batch, projection).double()
    solved = total @ torch.linalg.pinv(known)
    found = np.zeros((study.dataset.n_test, study.dataset.n_train), np.float32)
    found[rows] = solved.float().numpy()
    return found


def own_rows(study: Study, checkpoint: int) -> np.ndarray:
    """Rows of the test pictures that a checkpoint made."""
    table = study.table("test")
    found: np.ndarray = np.flatnonzero(
        (table["origin"] == "made") & (table["checkpoint"] == checkpoint)
    )
    return found


METHODS: dict[str, Callable[[Study], np.ndarray]] = {
    **{f"ours_{n}": lambda study, n=n: ours(study, n) for n in SIZE.checkpoints},  # type: ignore[misc]
    "gradient_cosine_1": lambda study: gradient_cosine(study, 0),
    "pixels": pixels,
    f"features_{MOST}": lambda study: likeness(study, MOST),
    "journey_1": journey,
    "random": lambda study: random_scores(study, 0),
}
"""Name → scores `[n_test, n_train]` of a study."""
