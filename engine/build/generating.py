"""Let a study's checkpoints make pictures, and write a study whose test split they are.

The new study has the same training pictures and the same models, as `weights`, with the recipe that
trained them. Its test split is what each checkpoint makes from the same seeds, then the pictures
that were held out before. Nothing of it is built yet. It is a study like any other: data come
first, and what models make of them follows.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engine import store
from engine.build.models import load_checkpoint
from engine.build.tasks import task_of
from engine.data.fitting import as_picture
from engine.models.hf_folder import find_folder, folder_of
from engine.store import layout
from engine.store.errors import DataloupeError, MissingCapability, SpecError, StoreError
from engine.store.layout import Split
from engine.store.text import counted
from engine.study.creation import create_study
from engine.study.examples import read_stacked_arrays
from engine.study.names import resolve_algorithm
from engine.study.reader import StudyReader

if TYPE_CHECKING:
    from engine.tasks import Generated

MADE, HELD_OUT = "made", "held out"
"""Values of the column `origin`."""
GUIDANCE, _MOST_GUIDANCE = 0.5, 20.0
_OF_ENCODING = ("image_size", "resize", "color", "value_range", "class_column")
"""Keys of [task] that the pictures of the new study have behind them."""
_OWN = ("id", "label", "file", "source_row", "origin", "seed", "checkpoint")


def generate(
    study: StudyReader,
    folder: str | Path,
    count: int = 40,
    seed: int = 0,
    steps: int = 50,
    frames: int = 8,
    guidance: float = GUIDANCE,
    algorithm: str | None = None,
) -> StudyReader:
    """Write a study whose test split the checkpoints of this one made; it is not built.

    Args:
        folder: Of the new study.
        count: How many pictures each checkpoint makes.
        seed: Of the first; the others follow. Checkpoints start from the same noise.
        steps: From noise to a picture, at most the timesteps.
        frames: How many steps of the way are kept.
        guidance: How far predictions are moved away from those for other classes; 0: not at all.
        algorithm: None: the first.

    Raises:
        MissingCapability: The study's models make no pictures.
        StoreError: Checkpoints are missing. SpecError: There is a study in the folder.
        DataloupeError: A number is out of range.
    """
    if study.has_data and task_of(study).generate is None:
        raise MissingCapability(
            f"Models of the task {study.dataset.task} make no examples. Studies of diffusion do."
        )
    algorithm, root = resolve_algorithm(study, algorithm), Path(folder)
    total = study.checkpoints(algorithm)
    files = [layout.checkpoint_file(study.root, algorithm, m) for m in range(total)]
    if not study.has_data or not all(file.exists() for file in files):
        raise StoreError(
            f"{study.root} lacks trained checkpoints of {algorithm}. Run `dataloupe build "
            f"{study.root}` first."
        )
    most = study.dataset.encoding["timesteps"]
    if count < 1 or not 1 <= frames <= steps <= most or seed < 0:
        raise DataloupeError(
            f"Take 1 or more pictures, seeds from 0 on, and 1 to {most:,} steps, of which as many "
            f"frames are kept at most; not {count}, {seed}, {steps} and {frames}."
        )
    if not 0 <= guidance <= _MOST_GUIDANCE:
        raise DataloupeError(
            f"guidance = {guidance:g} is not between 0 and {_MOST_GUIDANCE:g}: choose another."
        )
    if layout.spec_file(root).exists():
        raise SpecError(f"{layout.spec_file(root)} already exists. Choose a different folder.")
    seeds = np.arange(seed, seed + count)
    made = [_made(study, algorithm, m, seeds, steps, frames, guidance) for m in range(total)]
    _write_pictures(study, root, made, seeds)
    _write_weights(root, files)
    rows = {
        "frames": np.concatenate([one.frames for one in made]),
        "denoised": np.concatenate([one.denoised for one in made]),
        "timesteps": np.array(made[0].timesteps, np.int64),
    }
    about: dict[str, Any] = {
        "seed": seed,
        "count": count,
        "steps": steps,
        "checkpoints": total,
        "guidance": guidance,
    }
    fingerprint = store.fingerprint_of("trajectories", study.dataset.fingerprint, about)
    store.write_tensors(layout.trajectories_file(root), rows, fingerprint, about)
    return create_study(root, _spec_text(study, algorithm, about))


def _made(
    study: StudyReader,
    algorithm: str,
    checkpoint: int,
    seeds: np.ndarray,
    steps: int,
    frames: int,
    guidance: float,
) -> Generated:
    make = task_of(study).generate
    assert make is not None
    model = load_checkpoint(study, algorithm, checkpoint, "cpu")
    return make(model, study.dataset.encoding, seeds, steps, frames, guidance)


# --- the data -------------------------------------------------------------------------------------


def _write_pictures(
    study: StudyReader, root: Path, made: list[Generated], seeds: np.ndarray
) -> None:
    """Both splits, as the models see them."""
    rows: list[dict[str, Any]] = []
    for checkpoint, one in enumerate(made):
        for number, pixels in enumerate(one.pictures):
            told = {name: values[number] for name, values in one.columns.items()}
            about = {"origin": MADE, "seed": int(seeds[number]), "checkpoint": checkpoint}
            id_ = f"seed-{seeds[number]}-by-{checkpoint}"
            rows.append({"image": _png(pixels), "id": id_, **told, **about})
    _write_split(study, root, "test", [*rows, *_stored(study, "test")])
    _write_split(study, root, "train", list(_stored(study, "train")))


def _stored(study: StudyReader, split: Split) -> list[dict[str, Any]]:
    table, pixels = study.table(split), read_stacked_arrays(study, split)["input"]
    others = [n for n in table.columns if n not in _OWN and not n.startswith("original_")]
    origin = {"origin": HELD_OUT} if split == "test" else {}
    return [
        {"image": _png(pixels[row]), "id": str(table["id"][row]), **origin}
        | {name: table[name][row] for name in others}
        for row in range(len(table))
    ]


def _png(pixels: np.ndarray) -> dict[str, Any]:
    file = io.BytesIO()
    as_picture(pixels).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


def _write_split(study: StudyReader, root: Path, split: Split, rows: list[dict[str, Any]]) -> None:
    import datasets

    # Columns of the held-out pictures alone are missing for those that were made.
    columns = {name: [row.get(name) for row in rows] for name in {k: 0 for r in rows for k in r}}
    table = datasets.Dataset.from_dict(columns)
    table = table.cast_column("image", datasets.Image(decode=False))
    if names := study.dataset.encoding["conditions"]:  # in their order, which models know
        table = table.cast_column("class", datasets.ClassLabel(names=names))
    target = layout.generated_folder(root) / f"{split}.parquet"
    target.parent.mkdir(parents=True, exist_ok=True)
    with store.atomic(target) as temporary:
        table.to_parquet(temporary)


def _write_weights(root: Path, files: list[Path]) -> None:
    from safetensors.numpy import load_file, save_file

    for checkpoint, file in enumerate(files):
        target = layout.generated_weights_file(root, checkpoint)
        target.parent.mkdir(parents=True, exist_ok=True)
        with store.atomic(target) as temporary:
            save_file(load_file(file), temporary)


# --- the spec -------------------------------------------------------------------------------------


def _spec_text(study: StudyReader, algorithm: str, about: dict[str, Any]) -> str:
    """The new study.toml: the same, but for its data and weights."""
    spec = study.spec
    recipe = spec.algorithms[algorithm].model_dump(exclude_unset=True)
    if recipe.pop("initial_weights", None) is not None:
        # They cannot stand beside trained weights, and other starts would train other models.
        kept = ("architecture", "architecture_options", "train")
        recipe = {key: value for key, value in recipe.items() if key in kept}
    if (named := folder_of(recipe.get("architecture", ""))) is not None:
        library, name = named  # a path is relative to the study's folder
        recipe["architecture"] = f"{library}:{find_folder(name, study.root, library).resolve()}"
    recipe |= {
        "checkpoints": about["checkpoints"],
        "weights": [
            str(layout.generated_weights_file(Path(), m)) for m in range(about["checkpoints"])
        ],
    }
    task = {key: v for key, v in spec.task.own_keys().items() if key not in _OF_ENCODING}
    task["class_column"] = "class" if study.dataset.encoding["conditions"] else "none"
    tables: dict[str, dict[str, Any]] = {
        "data": {"source": str(layout.generated_folder(Path())), "id": "id"},
        "task": {"name": spec.task.name, **task},
        f"algorithms.{json.dumps(algorithm)}": recipe,
    }
    for name in ("trak", "search", "subset_runs", "live", "uploads"):
        if given := getattr(spec, name).model_dump(exclude_unset=True):
            tables[name] = given
    many = counted(about["count"], "picture")
    lines = [
        f"# {many} that each of {counted(about['checkpoints'], 'checkpoint')} made from the same "
        "seeds, and those held out before.",
        f"name = {json.dumps(f'{spec.name}: made by its models', ensure_ascii=False)}",
        f"seed = {spec.seed}",
    ]
    for name, table in tables.items():
        lines += ["", f"[{name}]", *(f"{key} = {_toml(v)}" for key, v in table.items())]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    """A value as TOML writes it."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(k)} = {_toml(v)}" for k, v in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)
