"""Pairs that are planted in training, and whether a method finds them.

Each chosen test pair gets `TWINS` pairs of one kind in training:

- *twin*: its picture turned, shrunk and recolored, with its caption in another order;
- *designer*: the same thing drawn by another designer, turned and recolored, with its name alone;
- *mislabelled*: that drawing, with the caption of the other thing most like it in words;
- *swapped*: the pair's own picture, turned and recolored, with captions of random training pairs.

The first two should be among its supporters, the others among its opposers. Embeddings can only be
asked for what is near. Many test pairs have other near duplicates in training (the same person in
other skin tones), so that planted pairs need not be the first; `benchmarks.clip_effects` measures
what they do.
"""

from __future__ import annotations

import csv
import io
import os
import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from benchmarks._server import ROOT
from benchmarks._study import built
from benchmarks.clip_lds import embedding_scores, mean_with_interval, of_caption, of_picture
from benchmarks.clip_study import SIZE, folder, spec_of
from engine import Study
from engine.data.words import words
from engine.store.layout import SPLITS, TRAK
from engine.store.rows import evenly_spread
from engine.study.retrieval import read_recall

TWINS = 5
"""Planted pairs for each test pair, as many as precision is measured at."""
DESIGNER = os.environ.get("DATALOUPE_CLIP_DESIGNER", "")
"""Archive of another designer's drawings; empty: its kinds are left out."""
_DRAWN = "package/img/twitter/64/"


@dataclass(frozen=True)
class Kind:
    """A kind of planted pairs.

    Attributes:
        key: Of its precision in the results.
        drawn: By another designer.
        supports: Whether it should be among the supporters, or the opposers.
    """

    key: str
    drawn: bool
    supports: bool


KINDS = {
    name: kind
    for name, kind in {
        "twin": Kind("planted_precision_at_5", drawn=False, supports=True),
        "swapped": Kind("swapped_precision_at_5", drawn=False, supports=False),
        "designer": Kind("designer_precision_at_5", drawn=True, supports=True),
        "mislabelled": Kind("mislabelled_precision_at_5", drawn=True, supports=False),
    }.items()
    if DESIGNER or not kind.drawn
}


@dataclass(frozen=True)
class Pair:
    """A pair of the example."""

    picture: Image.Image
    caption: str
    code_points: str


# --- what is found --------------------------------------------------------------------------------


def planted() -> dict[str, Any]:
    """Share of planted pairs among the first `TWINS` that a method finds for each test pair, by the
    keys of `KINDS`; `recall_at_20_of_planted`: among the first 20; `right_sign`: share of planted
    pairs whose score has the right sign."""
    study = planted_study()
    every = np.arange(study.dataset.n_test)
    ours = study.scores(every, None, TRAK)
    rivals = {
        "embedding": embedding_scores(study),
        "picture_embedding": embedding_scores(study, of_picture),
        "caption_embedding": embedding_scores(study, of_caption),
        "random": np.random.default_rng(0).normal(size=ours.shape),
    }
    found: dict[str, Any] = {"right_sign": {}, "recall_at_20_of_planted": {}}
    for name, kind in KINDS.items():
        signed = ours if kind.supports else -ours
        methods = {"ours": signed, **rivals}
        for keys, key, first in (
            (found, kind.key, TWINS),
            (found["recall_at_20_of_planted"], name, 20),
        ):
            keys[key] = {m: _found(study, name, scores, first) for m, scores in methods.items()}
        signs = [(signed[test, rows] > 0).mean() for test, rows in planted_rows(study, name)]
        found["right_sign"][name] = mean_with_interval(np.array(signs))
    return found | {
        "planted": {
            "test_pairs_of_each_kind": SIZE.planted,
            "planted_for_each": TWINS,
            "kinds": list(KINDS),
            "train": study.dataset.n_train,
            "test": study.dataset.n_test,
            "checkpoints": SIZE.checkpoints[-1],
            "recall": read_recall(study),
        }
    }


def _found(study: Study, kind: str, scores: np.ndarray, first: int) -> dict[str, float]:
    """Share of a test pair's planted ones among the `first` of its scores; there are `TWINS`."""
    found = np.array(
        [
            np.isin(rows, np.argsort(-scores[test], kind="stable")[:first]).mean()
            for test, rows in planted_rows(study, kind)
        ]
    )
    return mean_with_interval(found)


def planted_rows(study: Study, kind: str) -> Iterable[tuple[int, np.ndarray]]:
    """(test row, rows of the training pairs that were planted for it)."""
    of = study.table("train")[kind].to_numpy().astype(np.int64)
    for test in np.unique(of[of >= 0]).tolist():
        yield test, np.flatnonzero(of == test)


# --- planting -------------------------------------------------------------------------------------


def planted_study() -> Study:
    """The example with planted pairs in training, and no bank."""
    name = f"planted-{'-'.join(KINDS)}-{SIZE.planted}"
    source = folder() / f"{name}-pairs"
    if not source.exists():
        plant(source)
    spec = spec_of(SIZE.checkpoints[-1], 0).replace('"emoji"', f'"{source}"')
    lines = [line for line in spec.splitlines(True) if "_limit = " not in line]
    return built(f"{SIZE.folder}/{name}", "".join(lines))


def plant(target: Path) -> None:
    """Write the example with planted pairs as a folder of rows and pictures.

    A planted row has the test row that it is for in the column of its kind; others have −1.
    """
    generator = np.random.default_rng(0)
    pairs = {
        split: _example(split, count)
        for split, count in zip(SPLITS, (SIZE.train, SIZE.test), strict=True)
    }
    (target / "pictures").mkdir(parents=True)
    rows: dict[str, list[dict[str, Any]]] = {}
    for split, some in pairs.items():
        rows[split] = [
            _row(target, f"{split}-{number}", one.picture, one.caption)
            for number, one in enumerate(some)
        ]
    drawings = read_drawings({one.code_points for one in pairs["test"]}) if DESIGNER else {}
    able = [
        row for row, one in enumerate(pairs["test"]) if not DESIGNER or one.code_points in drawings
    ]
    captions = [one.caption for one in pairs["train"]]
    chosen = evenly_spread(len(able), len(KINDS) * SIZE.planted).tolist()
    for place, (test, name) in enumerate(
        zip((able[one] for one in chosen), list(KINDS) * SIZE.planted, strict=True)
    ):
        pair = pairs["test"][test]
        picture = drawings[pair.code_points] if KINDS[name].drawn else pair.picture
        for twin in range(TWINS):
            words_of_it = _caption(name, pair.caption, captions, generator)
            changed = near_duplicate(picture, generator)
            row = _row(target, f"{name}-{place}-{twin}", changed, words_of_it)
            rows["train"].append({**row, name: test})
    for name, some_rows in rows.items():
        _write(target / f"{name}.csv", some_rows)


def _caption(
    kind: str, caption: str, captions: Sequence[str], generator: np.random.Generator
) -> str:
    """The caption of a planted pair of this kind, for a test pair with `caption`."""
    if kind == "twin":
        return ", ".join(reversed(caption.split(", ")))
    if kind == "designer":
        return caption.split(", ")[0]
    if kind == "swapped":
        return captions[int(generator.integers(len(captions)))]
    return most_like(caption, captions)


def most_like(caption: str, captions: Sequence[str]) -> str:
    """The other caption that shares the largest part of its words."""
    own = {*words(caption)}

    def shared(other: str) -> float:
        theirs = {*words(other)}
        return 0.0 if theirs == own else len(own & theirs) / len(own | theirs)

    return max(captions, key=shared)


def near_duplicate(picture: Image.Image, generator: np.random.Generator) -> Image.Image:
    """The picture turned a little, shrunk, and with its colors scaled."""
    side = picture.width
    small = max(8, round(side * generator.uniform(0.75, 0.95)))
    turned = picture.rotate(
        generator.uniform(-12, 12), Image.Resampling.BILINEAR, fillcolor="white"
    )
    x, y = (int(value) for value in generator.integers(0, side - small + 1, 2))
    canvas = Image.new("RGB", picture.size, "white")
    canvas.paste(turned.resize((small, small)), (x, y))
    scaled = np.asarray(canvas) * generator.uniform(0.8, 1.0, 3)
    return Image.fromarray(scaled.round().astype(np.uint8))


def _example(split: str, count: int | None) -> list[Pair]:
    table = pq.read_table(ROOT / "assets" / "emoji" / f"{split}.parquet")
    rows = range(table.num_rows) if count is None else evenly_spread(table.num_rows, count).tolist()
    return [
        Pair(
            _on_white(Image.open(io.BytesIO(table["image"][row].as_py()["bytes"]))),
            table["caption"][row].as_py(),
            table["code_points"][row].as_py(),
        )
        for row in rows
    ]


def read_drawings(wanted: set[str]) -> dict[str, Image.Image]:
    """Code points → the other designer's picture, at the size of the example's."""
    found = {}
    with tarfile.open(DESIGNER) as archive:
        for member in archive:
            code = member.name.removeprefix(_DRAWN).removesuffix(".png")
            if member.name.startswith(_DRAWN) and code in wanted:
                content = archive.extractfile(member)
                assert content is not None
                picture = _on_white(Image.open(io.BytesIO(content.read())))
                found[code] = picture.resize((32, 32), Image.Resampling.LANCZOS)
    return found


def _on_white(picture: Image.Image) -> Image.Image:
    whole = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(whole, picture.convert("RGBA")).convert("RGB")


def _row(target: Path, name: str, picture: Image.Image, caption: str) -> dict[str, Any]:
    file = f"pictures/{name}.png"
    picture.save(target / file)
    return {"file_name": file, "caption": caption, **dict.fromkeys(KINDS, -1)}


def _write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
