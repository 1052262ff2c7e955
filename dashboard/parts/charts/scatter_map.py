"""The scatter plot of a map: train and test points overlaid, with the selection highlighted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from dashboard.read.studies import Examples
from engine.store.layout import SPLITS, Split
from engine.store.quantities import SIMILARITY

MOST_DRAWN = 6_000
"""More points than this are sampled: each is sent to the browser and drawn as SVG, which needs no
graphics card."""
DENSE = 3_000
"""From this many examples on, their density is drawn below the points."""
CELLS = 72
"""Cells of the density along the longer side."""
LONGEST_TEXT = 120
"""Characters of an example's text beside its point."""
HEIGHT = 620
CLASS, RESULT, LABEL, ERROR, OUTPUT = "class", "result", "label", "error", "output"
"""What colors the points; the last three are numbers."""
PALETTE = (
    *("#3a86c8", "#d1711a", "#3d9a50", "#b5569f", "#8a7433"),
    *("#20979c", "#c4504c", "#7a6fc7", "#2f7d5b", "#e05d8c"),
)
"""Distinguishable with color blindness, on light and dark backgrounds (contrast 3:1 or more)."""
OTHERS = "#87919a"
RIGHT, WRONG = "#20979c", "#c4504c"
RING = ("#ffffff", "#000000")
"""Two rings, so that one of them stands out from any ground."""
SYMBOLS: dict[Split, str] = {"train": "circle", "test": "diamond"}
NAMES: dict[Split, str] = {"train": "training", "test": "test"}

Selection = dict[Split, list[int]]


@dataclass(frozen=True)
class Layer:
    """Points drawn together: one split, one color."""

    split: Split
    name: str
    rows: np.ndarray
    colour: str | None
    hollow: bool = False


def drawn_rows(sizes: dict[Split, int], keep: Selection) -> dict[Split, np.ndarray]:
    """Rows of each split to draw: all, or a fixed sample plus the rows in `keep`."""
    total = sum(sizes.values())
    rows = {}
    for split, n in sizes.items():
        share = min(n, max(1, MOST_DRAWN * n // max(1, total)))
        sample = np.linspace(0, n - 1, share if total > MOST_DRAWN else n).astype(np.int64)
        rows[split] = np.union1d(sample, np.array(keep[split][:MOST_DRAWN], np.int64))
    return rows


def colours_of(examples: dict[Split, Examples]) -> dict[str, str]:
    """What can color these points → its title, the default first; empty if nothing can."""
    test = examples["test"]
    found = {CLASS: "Class"} if "label" in test.codes else {}
    found |= {RESULT: "Right or wrong"} if test.has_outcomes else {}
    titles = {LABEL: "Label", ERROR: "Error", OUTPUT: test.output.capitalize()}
    titles["similarity"] = SIMILARITY.name.capitalize()
    return found | {name: title for name, title in titles.items() if name in test.numbers}


def layers(examples: dict[Split, Examples], rows: dict[Split, np.ndarray], by: str) -> list[Layer]:
    """The points of both splits, grouped by color; all alike for a `by` that they do not have."""
    found = []
    for split in SPLITS:
        one, mine = examples[split], rows[split]
        if by in one.numbers:
            found.append(Layer(split, NAMES[split], mine, None))
        elif by not in colours_of(examples):
            found.append(Layer(split, NAMES[split], mine, OTHERS if split == "train" else RIGHT))
        elif by == RESULT:
            right = one.table["correct"].to_numpy(dtype=bool)[mine]
            found.append(Layer(split, "right", mine[right], RIGHT))
            found.append(Layer(split, "wrong", mine[~right], WRONG, hollow=True))
        else:
            codes = one.codes["label"][mine]
            for place, label in enumerate(one.classes[: len(PALETTE)]):
                found.append(Layer(split, _cut(label), mine[codes == place], PALETTE[place]))
            beyond = mine[codes >= len(PALETTE)]
            found.append(Layer(split, "other classes", beyond, OTHERS))
    return [layer for layer in found if len(layer.rows)]


def scatter(
    place: dict[str, np.ndarray],
    examples: dict[Split, Examples],
    shown: list[Layer],
    selected: Selection,
    ring: tuple[Split, int] | None,
    by: str,
) -> go.Figure:
    """The figure.

    Args:
        place: Positions: `train`, `test` `[n, 2]`.
        shown: From `layers`.
        selected: Rows; if there are any, all other points are gray.
        ring: The point to mark.
        by: What colors the points, as for `layers`.
    """
    title = colours_of(examples).get(by, "")
    some = any(selected.values())
    figure = go.Figure()
    everyone = np.concatenate([place[layer] for layer in {layer.split for layer in shown}])
    dense = len(everyone) >= DENSE
    if dense:
        figure.add_trace(density(everyone))
    listed: set[str] = set()
    for layer in shown:
        one = examples[layer.split]
        at = place[layer.split][layer.rows]
        marker: dict[str, object] = {
            "symbol": SYMBOLS[layer.split] + ("-open" if layer.hollow else ""),
            "size": (4 if dense else 5) if layer.split == "train" else (6 if dense else 8),
            "color": layer.colour,
            "opacity": 0.6 if dense else 0.75,
        }
        if layer.colour is None:
            values = one.numbers[by][layer.rows]
            marker |= {"color": values.tolist(), "coloraxis": "coloraxis"}
            figure.add_trace(_entry(layer))
        picked = np.flatnonzero(np.isin(layer.rows, selected[layer.split])).tolist()
        names = [name for name in ("id", "file", "label", "text") if name in one.table]
        hovered = one.table[names].iloc[layer.rows]
        texts = [
            "\n".join(
                _cut(str(text), LONGEST_TEXT)
                for text in dict.fromkeys(some_texts)
                if text is not None
            )
            for some_texts in zip(*(hovered[name] for name in names), strict=True)
        ]
        figure.add_trace(
            go.Scatter(
                x=at[:, 0],
                y=at[:, 1],
                mode="markers",
                name=layer.name,
                marker=marker,
                # One entry of the legend for both splits, whose symbols differ.
                legendgroup=layer.name,
                showlegend=layer.name not in listed and layer.colour is not None,
                customdata=[
                    [layer.split, int(row), f"{text}\n{NAMES[layer.split]}"]
                    for row, text in zip(layer.rows, texts, strict=True)
                ],
                hoverinfo="none",  # map_preview shows the example
                selectedpoints=picked if some else None,
                selected={"marker": {"size": 9, "opacity": 1}},
                unselected={"marker": {"color": OTHERS, "opacity": 0.06 if dense else 0.2}},
            )
        )
        listed.add(layer.name)
    if ring is not None:  # last, so on top
        x, y = place[ring[0]][ring[1]]
        for colour, size in zip(RING, (26, 22), strict=True):
            figure.add_trace(
                go.Scatter(
                    x=[x],
                    y=[y],
                    mode="markers",
                    name="this example",
                    showlegend=False,
                    marker={
                        "symbol": "circle-open",
                        "size": size,
                        "color": colour,
                        "line": {"width": 3},
                    },
                    unselected={"marker": {"opacity": 1}},
                    hoverinfo="skip",
                )
            )
    figure.update_layout(
        height=HEIGHT,
        margin={"l": 0, "r": 0, "t": 36, "b": 0},
        dragmode="lasso",
        hovermode="closest",
        uirevision="map",
        xaxis={"visible": False},
        yaxis={"visible": False, "scaleanchor": "x"},
        legend={"orientation": "h", "y": 1, "yanchor": "bottom", "itemsizing": "constant"},
        coloraxis={
            "colorscale": [[0, "#b3261e"], [0.5, "#a8b0b6"], [1, "#0b6f6c"]],
            # Errors have a sign, and so have outputs whose sign is the outcome.
            "cmid": 0 if by == ERROR or (by == OUTPUT and examples["test"].has_outcomes) else None,
            "colorbar": {"title": title, "thickness": 12},
        },
    )
    return figure


def _entry(layer: Layer) -> go.Scatter:
    """The legend's entry of points that are colored by numbers: Plotly would draw it black."""
    marker = {"symbol": SYMBOLS[layer.split], "color": OTHERS}
    return go.Scatter(
        x=[None], y=[None], mode="markers", name=layer.name, legendgroup=layer.name, marker=marker
    )


def density(points: np.ndarray) -> go.Heatmap:
    """How many of these points `[n, 2]` are where, in gray; nothing where there are none."""
    low, high = points.min(axis=0), points.max(axis=0)
    extent = np.maximum(high - low, 1e-9)
    bins = np.maximum(1, np.ceil(CELLS * extent / extent.max())).astype(int)
    counts, x, y = np.histogram2d(points[:, 0], points[:, 1], bins=bins.tolist())
    shown = np.log1p(counts).T.round(2)
    return go.Heatmap(
        x=(x[1:] + x[:-1]) / 2,
        y=(y[1:] + y[:-1]) / 2,
        z=shown,
        colorscale=[[0, "rgba(128,140,150,0)"], [1, "rgba(128,140,150,0.5)"]],
        zsmooth="best",
        showscale=False,
        hoverinfo="skip",
        name="density",
    )


def corners_of(selection: Any) -> list[tuple[float, float]] | None:
    """Corners of the lasso or box that Plotly reports, if there is exactly one."""
    drawn = [*selection.get("lasso", ()), *selection.get("box", ())]
    if len(drawn) != 1:
        return None
    x, y = ([float(value) for value in drawn[0].get(axis, ())] for axis in "xy")
    if len(x) == len(y) == 2:  # two opposite corners
        x, y = [x[0], x[1], x[1], x[0]], [y[0], y[0], y[1], y[1]]
    return list(zip(x, y, strict=False)) if len(x) >= 3 else None


def selection_of(points: list[dict[str, object]]) -> Selection:
    """Rows of both splits among the points that Plotly reports as selected."""
    found: Selection = {"train": [], "test": []}
    for point in points:
        data = point.get("customdata")
        if isinstance(data, dict):  # The browser returns a row of a list as a mapping.
            data = [data.get("0"), data.get("1")]
        if isinstance(data, list) and len(data) >= 2 and data[0] in SPLITS:
            found[data[0]].append(int(data[1]))
    return {split: sorted(set(rows)) for split, rows in found.items()}


def _cut(text: str, most: int = 40) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
