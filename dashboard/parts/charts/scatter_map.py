"""The scatter plot of a map: train and test points overlaid, with the selection highlighted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from dashboard.read.studies import Examples
from engine.store.layout import SPLITS, Split

MOST_DRAWN = 20_000
"""More points than this are sampled, as each is sent to the browser."""
NEED_GRAPHICS = 2_000
"""More points than this are drawn by WebGL; fewer as SVG, which needs no graphics card."""
HEIGHT = 620
CLASS, RESULT, LABEL, ERROR, OUTPUT = "class", "result", "label", "error", "output"
"""What colors the points; the last three are numbers."""
PALETTE = (
    *("#3a86c8", "#d1711a", "#3d9a50", "#b5569f", "#8a7433"),
    *("#20979c", "#c4504c", "#7a6fc7", "#2f7d5b", "#e05d8c"),
)
"""Distinguishable with color blindness, on light and dark backgrounds (contrast 3:1 or more)."""
OTHERS = "#87919a"
RING = "#e0218a"
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
    return found | {name: title for name, title in titles.items() if name in test.numbers}


def layers(examples: dict[Split, Examples], rows: dict[Split, np.ndarray], by: str) -> list[Layer]:
    """The points of both splits, grouped by color; all alike for a `by` that they do not have."""
    found = []
    for split in SPLITS:
        one, mine = examples[split], rows[split]
        if by in one.numbers:
            found.append(Layer(split, NAMES[split], mine, None))
        elif by not in colours_of(examples):
            found.append(Layer(split, NAMES[split], mine, PALETTE[SPLITS.index(split)]))
        elif by == RESULT:
            right = one.table["correct"].to_numpy(dtype=bool)[mine]
            found.append(Layer(split, f"{NAMES[split]}, right", mine[right], PALETTE[0]))
            found.append(Layer(split, f"{NAMES[split]}, wrong", mine[~right], PALETTE[1]))
        else:
            codes = one.codes["label"][mine]
            for place, label in enumerate(one.classes[: len(PALETTE)]):
                name = f"{_cut(label)}, {NAMES[split]}"
                found.append(Layer(split, name, mine[codes == place], PALETTE[place]))
            beyond = mine[codes >= len(PALETTE)]
            found.append(Layer(split, f"other classes, {NAMES[split]}", beyond, OTHERS))
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
    count = sum(len(layer.rows) for layer in shown)
    kind = go.Scattergl if count > NEED_GRAPHICS else go.Scatter
    some = any(selected.values())
    figure = go.Figure()
    for layer in shown:
        one = examples[layer.split]
        at = place[layer.split][layer.rows]
        marker: dict[str, object] = {
            "symbol": SYMBOLS[layer.split],
            "size": 5 if layer.split == "train" else 8,
            "color": layer.colour,
            "opacity": 0.75,
        }
        if layer.colour is None:
            values = one.numbers[by][layer.rows]
            marker |= {"color": values.tolist(), "coloraxis": "coloraxis"}
        picked = np.flatnonzero(np.isin(layer.rows, selected[layer.split])).tolist()
        names = [name for name in ("id", "file", "label") if name in one.table]
        hovered = one.table[names].iloc[layer.rows]
        figure.add_trace(
            kind(
                x=at[:, 0],
                y=at[:, 1],
                mode="markers",
                name=layer.name,
                marker=marker,
                customdata=[[layer.split, int(row)] for row in layer.rows],
                text=[
                    "<br>".join(_plain(name) for name in dict.fromkeys(texts) if name is not None)
                    for texts in zip(*(hovered[name] for name in names), strict=True)
                ],
                hovertemplate="%{text}<extra>" + NAMES[layer.split] + "</extra>",
                selectedpoints=picked if some else None,
                unselected={"marker": {"color": OTHERS, "opacity": 0.2}},
            )
        )
    if ring is not None:
        x, y = place[ring[0]][ring[1]]
        figure.add_trace(
            go.Scatter(
                x=[x],
                y=[y],
                mode="markers",
                name="this example",
                marker={
                    "symbol": "circle-open",
                    "size": 22,
                    "color": RING,
                    "line": {"width": 3},
                },
                hoverinfo="skip",
            )
        )
    figure.update_layout(
        height=HEIGHT,
        margin={"l": 0, "r": 0, "t": 8, "b": 0},
        dragmode="lasso",
        hovermode="closest",
        uirevision="map",
        xaxis={"visible": False},
        yaxis={"visible": False, "scaleanchor": "x"},
        legend={"orientation": "h", "y": -0.02, "itemsizing": "constant"},
        coloraxis={
            "colorscale": [[0, "#b3261e"], [0.5, "#a8b0b6"], [1, "#0b6f6c"]],
            # Errors have a sign, and so have outputs whose sign is the outcome.
            "cmid": 0 if by == ERROR or (by == OUTPUT and examples["test"].has_outcomes) else None,
            "colorbar": {"title": title, "thickness": 12},
        },
    )
    return figure


def selection_of(points: list[dict[str, object]]) -> Selection:
    """Rows of both splits among the points that Plotly reports as selected."""
    found: Selection = {"train": [], "test": []}
    for point in points:
        data = point.get("customdata")
        if isinstance(data, dict):  # The browser returns a row of a list as a mapping.
            data = [data.get("0"), data.get("1")]
        if isinstance(data, list) and len(data) == 2 and data[0] in SPLITS:
            found[data[0]].append(int(data[1]))
    return {split: sorted(set(rows)) for split, rows in found.items()}


def _plain(text: object) -> str:
    """Escape and truncate a text, as Plotly interprets tags such as `<b>`."""
    return _cut(str(text)).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _cut(text: str) -> str:
    return text if len(text) <= 40 else text[:39] + "…"
