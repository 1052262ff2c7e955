"""Reports of a comparison: a self-contained HTML page, the numbers as JSON, the examples as CSV.

Names, notes and labels are untrusted: everything is escaped, and no cell can be read as a formula
by a spreadsheet.
"""

from __future__ import annotations

import base64
import contextlib
import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from engine import store
from engine.applications.modeldiff.changed_examples import title_of
from engine.applications.modeldiff.comparison import read_comparison
from engine.applications.modeldiff.notes import notes
from engine.data.assets import asset
from engine.store import layout
from engine.store.errors import MissingFile
from engine.store.layout import Split
from engine.store.quantities import ACCURACY, EFFECT, P_VALUE, SIMILARITY
from engine.store.text import counted, harmless, visible
from engine.study.capabilities import has
from engine.study.examples import FILE, read_texts_of
from engine.study.reader import StudyReader
from engine.study.thumbnails import read_thumbnails

SHOWN = 12
"""Number of examples of each kind, for each direction."""
LONGEST_TEXT = 240
"""Most characters shown of a text."""
TRAIN: Split = "train"
TEST: Split = "test"


@dataclass(frozen=True)
class ShownExample:
    """An example as the page shows it.

    Attributes:
        text: Its text; None for a picture.
        picture: PNG in base64; empty for a text.
        file: Where the picture came from; empty if that is not known.
    """

    label: str
    text: str | None = None
    picture: str = ""
    file: str = ""


Show = Callable[[Split, Sequence[int]], list[ShownExample]]


def as_dict(study: StudyReader, comparison: str) -> dict[str, Any]:
    """Everything that is kept of a comparison, ready for JSON."""
    about = read_comparison(study, comparison)
    all_notes = notes(study, comparison)
    for key, found in about["directions"].items():
        for one in found:
            note = all_notes.get((key, one["number"]))
            one |= {"name": note.name if note else "", "note": note.note if note else ""}
            one["files"] = {
                part: read_texts_of(study, split, FILE, one[part])
                for part, split in (("positive", TRAIN), ("negative", TRAIN), ("tests", TEST))
            }
    hypotheses = []
    for path in layout.hypothesis_files(study.root, comparison):
        with contextlib.suppress(MissingFile):  # removed just now
            hypotheses.append(store.read_json(path))
    uploads = study.uploads
    return {
        "comparison": about,
        "hypotheses": hypotheses,
        "provenance": {
            "study": study.spec.name,
            "seed": study.spec.seed,
            "data_fingerprint": study.dataset.fingerprint,
            "n_train": study.dataset.n_train,
            "n_test": study.dataset.n_test,
            "dataloupe": version("dataloupe"),
            "algorithms": {
                key: _metadata(study, about[key]["algorithm"], uploads) for key in ("a", "b")
            },
        },
    }


def as_csv(study: StudyReader, comparison: str) -> str:
    """One row per example of each direction, with its weight or projection."""
    about = read_comparison(study, comparison)
    tables = {split: study.table(split) for split in (TRAIN, TEST)}
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    heads = (
        "directions_of",
        "direction",
        "significant",
        "split",
        "row",
        "id",
        "file",
        "label",
        "value",
    )
    writer.writerow(heads)
    for key, found in about["directions"].items():
        for one in found:
            judged = {None: "not judged", True: "yes", False: "no"}[one["significant"]]
            for split, rows, values in (
                (TRAIN, one["positive"], one["positive_weights"]),
                (TRAIN, one["negative"], one["negative_weights"]),
                (TEST, one["tests"], one["projections"]),
            ):
                for row, value in zip(rows, values, strict=True):
                    example = tables[split].iloc[row]
                    cells = [harmless(about[key]["name"]), one["number"] + 1, judged, split, row]
                    texts = example["id"], example.get(FILE) or "", example["label"]
                    cells += [*(harmless(str(text)) for text in texts), value]
                    writer.writerow(cells)
    return file.getvalue()


def as_html(study: StudyReader, comparison: str) -> str:
    """One page that contains its pictures; its template is in assets/reports."""
    everything = as_dict(study, comparison)
    about, provenance = everything["comparison"], everything["provenance"]
    names = {key: str(about[key]["name"]) for key in ("a", "b")}
    show = _examples(study)
    both = (*about["directions"]["a"], *about["directions"]["b"])
    largest = max((max(one["own_variance"], one["other_variance"]) for one in both), default=0.0)
    sides = [
        {
            "own": names[key],
            "other": names[other],
            "directions": [
                _direction(one, {key: names[key], other: names[other]}, largest or 1.0, show)
                for one in about["directions"][key]
            ],
        }
        for key, other in (("a", "b"), ("b", "a"))
    ]
    return (
        _templates()
        .get_template("comparison.html")
        .render(
            **names,
            study=provenance["study"],
            about=about,
            attributed_by=attributed_by(about),
            sides=sides,
            hypotheses=[
                {"when": one["when"], "rows": _effects(one)} for one in everything["hypotheses"]
            ],
            provenance=_provenance(provenance, names),
        )
    )


@cache
def _templates() -> Environment:
    """Templates of assets/reports. All values are escaped."""
    return Environment(
        loader=FileSystemLoader(asset("reports")),
        autoescape=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )


def attributed_by(about: dict[str, Any]) -> str:
    """One sentence with the attribution method of each side."""
    a, b = (about[key]["method_title"] for key in ("a", "b"))
    if a == b:
        return f"Both attributed with {a}."
    return f"{about['a']['name']} attributed with {a}, {about['b']['name']} with {b}."


def _metadata(study: StudyReader, algorithm: str, uploads: dict[str, Any]) -> dict[str, Any]:
    """The provenance of an algorithm."""
    spec = study.algorithms[algorithm]
    about: dict[str, Any] = {
        "algorithm": algorithm,
        "architecture": spec.architecture,
        "architecture_options": spec.architecture_options,
        "checkpoints": study.checkpoints(algorithm),
        "uploaded": algorithm in uploads,
    }
    if upload := uploads.get(algorithm):
        about |= {"name": upload.name, "who": upload.who, "when": upload.when}
        about["files"] = [{"name": file.name, "sha256": file.sha256} for file in upload.files]
    return about


def _direction(
    one: dict[str, Any], names: dict[str, str], largest: float, show: Show
) -> dict[str, Any]:
    """A direction with its examples instead of their rows.

    Args:
        names: Of the algorithms `a` and `b`, the one that it is of first.
        largest: The share of the variance whose bar is longest.
    """
    shown = {
        key: show(split, one[key])
        for key, split in (("positive", TRAIN), ("negative", TRAIN), ("tests", TEST))
    }
    variances = [
        (name, letter, one[f"{kind}_variance"] / largest, ACCURACY.text(one[f"{kind}_variance"]))
        for kind, (letter, name) in zip(("own", "other"), names.items(), strict=True)
    ]
    return {
        **one,
        **shown,
        "variances": variances,
        "stability": SIMILARITY.text(one["stability"]),
    }


ENDS = ("mean", "low", "high")


def _effects(hypothesis: dict[str, Any]) -> list[list[str]]:
    """The cells of one table row per transformation and intensity."""
    rows = []
    for tested in hypothesis["tested"]:
        for effect, p in zip(tested["effects"], tested["adjusted"], strict=True):
            cells = [title_of(tested["name"]), f"{effect['intensity']:g}"]
            for key in ("a", "b", "difference"):
                cells.append(EFFECT.within(*(effect[key]["probability"][end] for end in ENDS)))
            rows.append([*cells, "–" if p is None else P_VALUE.text(p)])
    return rows


def _provenance(about: dict[str, Any], names: dict[str, str]) -> list[tuple[str, str]]:
    rows = [
        ("Study", f"{about['study']}, seed {about['seed']}"),
        (
            "Data",
            f"{about['n_train']:,} training and {about['n_test']:,} test examples, fingerprint "
            f"{about['data_fingerprint']}",
        ),
        ("Dataloupe", about["dataloupe"]),
    ]
    for key, one in about["algorithms"].items():
        text = f"{one['architecture']} {one['architecture_options'] or ''}".strip()
        text += f", {counted(one['checkpoints'], 'checkpoint')}"
        if one["uploaded"]:
            files = "; ".join(f"{file['name']} (SHA-256 {file['sha256']})" for file in one["files"])
            text += f", uploaded {one['when']} {one['who']}: {files}"
        rows.append((names[key], text))
    return rows


def _png(picture: Image.Image) -> str:
    """A picture as PNG in Base64."""
    file = io.BytesIO()
    picture.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def _examples(study: StudyReader) -> Show:
    """A function that renders examples of a split."""
    tables = {split: study.table(split) for split in (TRAIN, TEST)}

    def show(split: Split, rows: Sequence[int]) -> list[ShownExample]:
        shown = []
        numbers = np.asarray(rows[:SHOWN], int).tolist()
        pictures = [] if has(study, "texts") else read_thumbnails(study, split, numbers)
        for place, row in enumerate(numbers):
            example = tables[split].iloc[row]
            label = str(example["label"])
            if has(study, "texts"):
                text = str(example["text"])
                cut = "…" if len(text) > LONGEST_TEXT else ""
                shown.append(ShownExample(label, text=visible(text[:LONGEST_TEXT]) + cut))
            else:
                file = example.get(FILE) or ""
                shown.append(ShownExample(label, picture=_png(pictures[place]), file=file))
        return shown

    return show
