"""All that was found by comparing two algorithms, to take away: a page that needs no server, the
numbers as JSON, the directions' examples as CSV.

Names, notes and labels are other people's text: everything is escaped, and a cell that a
spreadsheet would take for a formula is not one.
"""

from __future__ import annotations

import base64
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
from engine.applications.modeldiff.comparison import read_comparison
from engine.applications.modeldiff.notes import notes
from engine.applications.modeldiff.transformations import TRANSFORMATIONS
from engine.data.assets import asset
from engine.data.thumbnails import SPRITES_PER_SHEET, crop
from engine.store import layout
from engine.store.layout import Split
from engine.store.text import harmless
from engine.study.reader import StudyReader

SHOWN = 12
"""Examples of each kind, for each direction."""
LONGEST_TEXT = 240
"""Characters of a text."""
TRAIN: Split = "train"
TEST: Split = "test"


@dataclass(frozen=True)
class ShownExample:
    """An example as the page shows it.

    Attributes:
        text: Its text; None where it is a picture.
        picture: PNG in base64; empty where it is a text.
    """

    label: str
    text: str | None = None
    picture: str = ""


Show = Callable[[Split, Sequence[int]], list[ShownExample]]


def as_dict(study: StudyReader, comparison: str) -> dict[str, Any]:
    """Everything that is kept of a comparison, as JSON can hold it."""
    about = read_comparison(study, comparison)
    said = notes(study, comparison)
    for key, found in about["directions"].items():
        for one in found:
            note = said.get((key, one["number"]))
            one |= {"name": note.name if note else "", "note": note.note if note else ""}
    uploads = study.uploads
    return {
        "comparison": about,
        "hypotheses": [
            store.read_json(path) for path in layout.hypothesis_files(study.root, comparison)
        ],
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
    """A row for each example of each direction: what it is, its weight or projection."""
    about = read_comparison(study, comparison)
    tables = {split: study.table(split) for split in (TRAIN, TEST)}
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    heads = "directions_of", "direction", "significant", "split", "row", "id", "label", "value"
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
                    words = [harmless(about[key]["name"]), one["number"] + 1, judged, split, row]
                    words += [harmless(str(example["id"])), harmless(str(example["label"])), value]
                    writer.writerow(words)
    return file.getvalue()


def as_html(study: StudyReader, comparison: str) -> str:
    """One page that holds its pictures itself; its text lies in assets/reports."""
    everything = as_dict(study, comparison)
    about, made = everything["comparison"], everything["provenance"]
    names = {key: str(about[key]["name"]) for key in ("a", "b")}
    show = _examples(study)
    sides = [
        {
            "own": names[key],
            "other": names[other],
            "directions": [
                _direction(one, names[key], names[other], show) for one in about["directions"][key]
            ],
        }
        for key, other in (("a", "b"), ("b", "a"))
    ]
    return (
        _templates()
        .get_template("comparison.html")
        .render(
            **names,
            study=made["study"],
            about=about,
            attributed_by=attributed_by(about),
            sides=sides,
            hypotheses=[
                {"when": one["when"], "rows": _effects(one)} for one in everything["hypotheses"]
            ],
            provenance=_provenance(made, names),
        )
    )


@cache
def _templates() -> Environment:
    """Pages of assets/reports. Whatever they are filled with is escaped."""
    return Environment(
        loader=FileSystemLoader(asset("reports")),
        autoescape=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )


def attributed_by(about: dict[str, Any]) -> str:
    """One sentence: by which method the attributions of either side are."""
    a, b = (about[key]["method_title"] for key in ("a", "b"))
    if a == b:
        return f"Attributions of both by {a}."
    return f"Attributions of {about['a']['name']} by {a}, of {about['b']['name']} by {b}."


def _metadata(study: StudyReader, algorithm: str, uploads: dict[str, Any]) -> dict[str, Any]:
    """Where an algorithm comes from."""
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


def _direction(one: dict[str, Any], own: str, other: str, show: Show) -> dict[str, Any]:
    """A direction with its examples in place of their rows."""
    shown = {
        key: show(split, one[key])
        for key, split in (("positive", TRAIN), ("negative", TRAIN), ("tests", TEST))
    }
    variances = (own, "own", one["own_variance"]), (other, "other", one["other_variance"])
    return {**one, **shown, "variances": variances}


def _effects(hypothesis: dict[str, Any]) -> list[list[str]]:
    """Cells of a row for each transformation and intensity."""
    rows = []
    for tested in hypothesis["tested"]:
        for effect, p in zip(tested["effects"], tested["adjusted"], strict=True):
            cells = [TRANSFORMATIONS[tested["name"]].title, f"{effect['intensity']:g}"]
            for key in ("a", "b", "difference"):
                ate = effect[key]["probability"]
                cells.append(f"{ate['mean']:+z.3f} ({ate['low']:+z.3f} to {ate['high']:+z.3f})")
            rows.append([*cells, f"{p:.2g}"])
    return rows


def _provenance(made: dict[str, Any], names: dict[str, str]) -> list[tuple[str, str]]:
    rows = [
        ("Study", f"{made['study']}, seed {made['seed']}"),
        (
            "Data",
            f"{made['n_train']:,} training and {made['n_test']:,} test examples, fingerprint "
            f"{made['data_fingerprint']}",
        ),
        ("Dataloupe", made["dataloupe"]),
    ]
    for key, one in made["algorithms"].items():
        words = f"{one['architecture']} {one['architecture_options'] or ''}".strip()
        words += f", {one['checkpoints']} checkpoints"
        if one["uploaded"]:
            files = "; ".join(f"{file['name']} (SHA-256 {file['sha256']})" for file in one["files"])
            words += f", uploaded {one['when']} {one['who']}: {files}"
        rows.append((names[key], words))
    return rows


def _examples(study: StudyReader) -> Show:
    """Gives what is shown of examples of a split; each sheet of pictures is read once."""
    tables = {split: study.table(split) for split in (TRAIN, TEST)}
    sheets: dict[tuple[Split, int], Image.Image] = {}

    def picture(split: Split, row: int) -> str:
        number, position = divmod(row, SPRITES_PER_SHEET)
        if (split, number) not in sheets:
            with Image.open(layout.sprite_file(study.root, split, number)) as sheet:
                sheets[split, number] = sheet.convert("RGB")
        file = io.BytesIO()
        crop(sheets[split, number], position, study.dataset.cell).save(file, "PNG")
        return base64.b64encode(file.getvalue()).decode()

    def show(split: Split, rows: Sequence[int]) -> list[ShownExample]:
        shown = []
        for row in np.asarray(rows[:SHOWN], int).tolist():
            example = tables[split].iloc[row]
            label = str(example["label"])
            if study.dataset.display == "text":
                shown.append(ShownExample(label, text=str(example["text"])[:LONGEST_TEXT]))
            else:
                shown.append(ShownExample(label, picture=picture(split, row)))
        return shown

    return show
