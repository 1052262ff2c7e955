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
from html import escape
from importlib.metadata import version
from typing import Any

import numpy as np
from PIL import Image

from engine import store
from engine.applications.modeldiff.comparison import read_comparison
from engine.applications.modeldiff.notes import notes
from engine.applications.modeldiff.transformations import TRANSFORMATIONS
from engine.data.thumbnails import SPRITES_PER_SHEET, crop
from engine.store import layout
from engine.store.csv_cells import harmless
from engine.store.layout import Split
from engine.study.reader import StudyReader

PICTURES = 12
"""Of each kind, for each direction."""
_OTHER = {"a": "b", "b": "a"}
_STYLE = """
:root{color-scheme:light dark}
body{font:15px/1.5 system-ui,sans-serif;max-width:1080px;margin:32px auto;padding:0 20px}
h1{font-size:1.6rem}h2{margin-top:2.2em;font-size:1.2rem}h3{margin:1.8em 0 .3em;font-size:1.02rem}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:.9rem}
td,th{padding:5px 12px 5px 0;border-bottom:1px solid #8884;text-align:left;vertical-align:top}
.wide{overflow-x:auto}
.row{display:flex;flex-wrap:wrap;gap:8px;margin:6px 0 14px}
figure{margin:0;width:84px}figure img{width:84px;image-rendering:pixelated;border-radius:4px}
figcaption{font-size:.75rem;overflow:hidden;text-overflow:ellipsis}
blockquote{margin:4px 0;padding:4px 10px;border-left:3px solid #8886}
.bar{display:inline-block;height:9px;border-radius:3px;background:#2f7fc4}
.bar.other{background:#c96a12}small,.note{color:light-dark(#57626c,#9ba6af)}
"""


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
    tables = {split: study.table(split) for split in ("train", "test")}  # type: ignore[arg-type]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    heads = "directions_of", "direction", "significant", "split", "row", "id", "label", "value"
    writer.writerow(heads)
    for key, found in about["directions"].items():
        for one in found:
            judged = {None: "not judged", True: "yes", False: "no"}[one["significant"]]
            for split, rows, values in (
                ("train", one["positive"], one["positive_weights"]),
                ("train", one["negative"], one["negative_weights"]),
                ("test", one["tests"], one["projections"]),
            ):
                for row, value in zip(rows, values, strict=True):
                    example = tables[split].iloc[row]
                    words = [harmless(about[key]["name"]), one["number"] + 1, judged, split, row]
                    words += [harmless(str(example["id"])), harmless(str(example["label"])), value]
                    writer.writerow(words)
    return file.getvalue()


def as_html(study: StudyReader, comparison: str) -> str:
    """One page that holds its pictures itself."""
    everything = as_dict(study, comparison)
    about, made = everything["comparison"], everything["provenance"]
    names = {key: str(about[key]["name"]) for key in ("a", "b")}
    show = _examples(study)
    parts = [
        f"<h1>{escape(names['a'])} and {escape(names['b'])}</h1>",
        f"<p>What two learning algorithms of “{escape(made['study'])}” do differently, by their "
        f"training data. Compared {escape(about['when'])}.</p>",
        f"<p>{escape(attributed_by(about))} {escape(about['significance'])}</p>",
    ]
    if about["indicative"]:
        parts.append(
            f"<p><b>Indicative</b>: {about['wanted']} more checkpoints of the side that has fewest "
            "would do.</p>"
        )
    for key in ("a", "b"):
        own, other = names[key], names[_OTHER[key]]
        parts.append(f"<h2>What {escape(own)} does and {escape(other)} does not</h2>")
        parts += [_direction(one, own, other, show) for one in about["directions"][key]]
    if everything["hypotheses"]:
        parts.append("<h2>Hypotheses</h2>")
        parts += [_hypothesis(one, names) for one in everything["hypotheses"]]
    parts.append(_provenance(made, names))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "img-src data:; style-src 'unsafe-inline'\">"
        f"<title>{escape(names['a'])} and {escape(names['b'])}</title><style>{_STYLE}</style>"
        f"</head><body>{''.join(parts)}</body></html>\n"
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


def _direction(
    one: dict[str, Any], own: str, other: str, show: Callable[[Split, Sequence[int]], str]
) -> str:
    name = f": {escape(one['name'])}" if one["name"] else ""
    note = f"<blockquote>{escape(one['note'])}</blockquote>" if one["note"] else ""
    bars = "".join(
        f'<tr><td>{escape(who)}</td><td><span class="bar {kind}" style="width:{300 * value:.0f}px">'
        f"</span> {value:.1%}</td></tr>"
        for who, kind, value in (
            (own, "own", one["own_variance"]),
            (other, "other", one["other_variance"]),
        )
    )
    return (
        f"<h3>Direction {one['number'] + 1}{name}</h3>{note}<p>{escape(one['reading'])} "
        f"Found again among resampled test examples with a cosine of {one['stability']:.2f}.</p>"
        f"<table>{bars}</table>"
        f"<small>Training examples, positive weights</small>{show('train', one['positive'])}"
        f"<small>Training examples, negative weights</small>{show('train', one['negative'])}"
        f"<small>Test examples that project most</small>{show('test', one['tests'])}"
    )


def _hypothesis(one: dict[str, Any], names: dict[str, str]) -> str:
    rows = []
    for tested in one["tested"]:
        for effect, p in zip(tested["effects"], tested["adjusted"], strict=True):
            cells = [TRANSFORMATIONS[tested["name"]].title, f"{effect['intensity']:g}"]
            for key in ("a", "b", "difference"):
                ate = effect[key]["probability"]
                cells.append(f"{ate['mean']:+z.3f} ({ate['low']:+z.3f} to {ate['high']:+z.3f})")
            cells.append(f"{p:.2g}")
            rows.append("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>")
    heads = ["Transformation", "Intensity", f"ATE of {names['a']}", f"ATE of {names['b']}"]
    heads += ["Difference", "p (Holm)"]
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    return (
        f"<p>{escape(one['when'])}: change of the true label's probability, 95 % intervals.</p>"
        f'<div class="wide"><table><tr>{head}</tr>{"".join(rows)}</table></div>'
    )


def _provenance(made: dict[str, Any], names: dict[str, str]) -> str:
    rows = {
        "Study": f"{made['study']}, seed {made['seed']}",
        "Data": f"{made['n_train']:,} training and {made['n_test']:,} test examples, fingerprint "
        f"{made['data_fingerprint']}",
        "Dataloupe": made["dataloupe"],
    }
    for key, one in made["algorithms"].items():
        words = f"{one['architecture']} {one['architecture_options'] or ''}".strip()
        words += f", {one['checkpoints']} checkpoints"
        if one["uploaded"]:
            files = "; ".join(f"{file['name']} (SHA-256 {file['sha256']})" for file in one["files"])
            words += f", uploaded {one['when']} {one['who']}: {files}"
        rows[names[key]] = words
    cells = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(words)}</td></tr>" for name, words in rows.items()
    )
    return f"<h2>Where this comes from</h2><table>{cells}</table>"


def _examples(study: StudyReader) -> Callable[[Split, Sequence[int]], str]:
    """Shows examples of a split; each sheet of pictures is read once."""
    tables = {split: study.table(split) for split in ("train", "test")}  # type: ignore[arg-type]
    sheets: dict[tuple[Split, int], Image.Image] = {}

    def picture(split: Split, row: int) -> str:
        number, position = divmod(row, SPRITES_PER_SHEET)
        if (split, number) not in sheets:
            with Image.open(layout.sprite_file(study.root, split, number)) as sheet:
                sheets[split, number] = sheet.convert("RGB")
        file = io.BytesIO()
        crop(sheets[split, number], position, study.dataset.cell).save(file, "PNG")
        return base64.b64encode(file.getvalue()).decode()

    def show(split: Split, rows: Sequence[int]) -> str:
        shown = []
        for row in np.asarray(rows[:PICTURES], int).tolist():
            example = tables[split].iloc[row]
            label = escape(str(example["label"]), quote=True)
            if study.dataset.display == "text":
                text = escape(str(example["text"])[:240])
                shown.append(f"<blockquote>{text} <small>{label}</small></blockquote>")
            else:
                shown.append(
                    f'<figure><img alt="{label}" src="data:image/png;base64,{picture(split, row)}">'
                    f"<figcaption>{label}</figcaption></figure>"
                )
        return f'<div class="row">{"".join(shown) or "none"}</div>'

    return show
