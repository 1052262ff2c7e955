"""Predicted against actual outputs of the test runs, as points that link to their examples."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import plotly.graph_objects as go
import streamlit as st

from engine.attribution.evaluation.calibration import NINETY

POINTS = 2_000
"""More points than this are drawn as a density, with a sample of `DOTS` points to click."""
DOTS = 300
CELLS = 48
HEIGHT = 460
TEAL, GREY = "#20979c", "#87919a"
"""Visible on light and dark backgrounds (contrast 3:1 or more)."""


def agreement(
    outputs: dict[str, np.ndarray],
    ids: list[str],
    output: str,
    row: int | None,
    calibrated: bool = True,
) -> go.Figure:
    """Figure for all test examples, or for one.

    For all, each example's mean is subtracted from its points, as for the LDS and R². Otherwise
    the differences between examples, which any mean predicts, would dominate.

    Args:
        outputs: From `Study.predicted_and_actual`.
        ids: Of the test examples.
        output: Name of the model output.
        row: The one test example shown; None for all.
        calibrated: Whether predicted outputs are in the unit of the actual ones. Only then are
            points expected on the diagonal.
    """
    everything = None
    if row is None:
        tests, runs = _sample(outputs["actual"].shape)
        centered = {
            name: outputs[name] - outputs[name].mean(axis=1, keepdims=True)
            for name in ("predicted", "actual")
        }
        found = {name: array[tests, runs] for name, array in centered.items()}
        if outputs["actual"].size > POINTS:
            everything = centered
        minus_mean = ", minus the example’s mean"
    else:
        found = {name: np.asarray(array[row]) for name, array in outputs.items()}
        runs = np.arange(len(found["actual"]))
        tests = np.full(len(runs), row)
        minus_mean = ""
    deviation = found.get("deviation")
    names = [ids[test] for test in tests]
    figure = go.Figure()
    if calibrated:
        shown = everything or found
        among = [np.ravel(shown[name]) for name in ("predicted", "actual")]
        ends = add_diagonal(figure, np.concatenate(among))
        figure.update_xaxes(range=ends)
        figure.update_yaxes(range=ends)
    if everything is not None:
        figure.add_trace(_density(everything["predicted"], everything["actual"]))
    figure.add_trace(
        go.Scatter(
            x=found["predicted"],
            y=found["actual"],
            error_x=None if deviation is None else _bars(deviation),
            mode="markers",
            marker={"color": TEAL, "size": 5 if row is None else 9},
            opacity=0.9 if row is not None else 0.6 if everything is None else 0.4,
            # Lists, as the browser returns a row of an array as a mapping.
            customdata=np.stack([tests, runs], axis=1).tolist(),
            text=names,
            hovertemplate="%{text}, test run %{customdata[1]}<br>predicted %{x:.2f}<br>"
            "actual %{y:.2f}<extra></extra>",
        )
    )
    figure.update_layout(
        height=HEIGHT,
        margin={"l": 8, "r": 8, "t": 8, "b": 8},
        showlegend=False,
        hovermode="closest",
        dragmode=False,
        xaxis={
            "title": f"{f'Predicted {output}' if calibrated else 'Sum of scores'}{minus_mean}",
            "zeroline": False,
        },
        yaxis={"title": f"Actual {output}{minus_mean}", "zeroline": False},
    )
    return figure


def _density(x: np.ndarray, y: np.ndarray) -> go.Heatmap:
    """How many of all points are where; the scale is logarithmic."""
    counts, across, up = np.histogram2d(np.ravel(x), np.ravel(y), bins=CELLS)
    return go.Heatmap(
        x=(across[1:] + across[:-1]) / 2,
        y=(up[1:] + up[:-1]) / 2,
        z=np.log10(counts.T + 1).round(2),
        customdata=counts.T.astype(int),
        colorscale=[[0, "rgba(32,151,156,0)"], [1, "rgba(32,151,156,1)"]],
        showscale=False,
        hovertemplate="%{customdata} points here<extra></extra>",
    )


def add_diagonal(figure: go.Figure, values: np.ndarray) -> list[float]:
    """Add the line where actual equals predicted; return the axis range, with a margin."""
    low, high = float(values.min()), float(values.max())
    room = 0.04 * (high - low or 1.0)
    ends = [low - room, high + room]
    line = {"color": GREY, "dash": "dash", "width": 1.5}
    figure.add_trace(go.Scatter(x=ends, y=ends, mode="lines", line=line, hoverinfo="skip"))
    return ends


def _bars(deviation: np.ndarray) -> dict[str, object]:
    return {"array": NINETY * deviation, "color": TEAL, "thickness": 1, "width": 0}


def _sample(shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Test rows and runs of the points shown, with a fixed seed."""
    count = shape[0] * shape[1]
    chosen = np.arange(count)
    if count > POINTS:
        chosen = np.sort(np.random.default_rng(0).choice(count, DOTS, replace=False))
    tests, runs = np.unravel_index(chosen, shape)
    return tests, runs


def show(figure: go.Figure, alt: str, key: str, on_open: Callable[[int], None]) -> None:
    """Draw the figure; `on_open` is called with the row of a clicked point."""
    event = st.plotly_chart(
        figure,
        key=key,
        on_select="rerun",
        selection_mode="points",
        config={"displayModeBar": False, "scrollZoom": False},
        alt=alt,
    )
    points = event["selection"]["points"]
    if points:
        on_open(int(points[0]["customdata"][0]))
