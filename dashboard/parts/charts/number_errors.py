"""How well numbers are predicted: errors as figures, their histogram, predicted against actual."""

from __future__ import annotations

import numpy as np

from dashboard.parts.charts.histogram import Series, histogram
from dashboard.parts.layout.blocks import aside
from dashboard.parts.removal.verify_by_retraining import change_scatter
from dashboard.read.number_errors import errors_of
from dashboard.read.studies import Examples
from engine.store.quantities import ERROR, OUTPUT, SHARE, SIZE
from engine.store.rows import evenly_spread

BINS = 32
MOST_DRAWN = 2_000


def error_figures(tests: Examples, training: Examples, kind: str) -> dict[str, tuple[str, str]]:
    """Mean absolute error and R² on the test examples, and the error on the training examples."""
    errors = errors_of(tests, training)
    found = {
        "Mean absolute error": (SIZE.text(errors.test), f"on {len(tests.table):,} test {kind}")
    }
    if errors.explained is not None:
        words = "of the test labels’ variance is predicted"
        found["R²"] = SHARE.text(errors.explained), words
    found["Training error"] = (
        SIZE.text(errors.training),
        f"mean, absolute, on {len(training.table):,} {kind}",
    )
    return found


def error_scatter(tests: Examples) -> None:
    """Draw predicted numbers against labels."""
    label = tests.numbers["label"]
    rows = evenly_spread(len(label), MOST_DRAWN)
    words = "Each point is one test example. On the dashed line, the prediction is the label."
    if len(rows) < len(label):
        words += f" {len(rows):,} evenly spread ones are drawn."
    aside(words)
    predicted = label + tests.numbers["error"]
    ids = [str(tests.ids[row]) for row in rows]
    axes = ("Predicted", "True label")
    change_scatter(predicted[rows], label[rows], ids, "predicted_labels", words, axes)


def error_histogram(tests: Examples) -> str:
    """HTML of the histogram of errors."""
    error = tests.numbers["error"]
    reach = float(np.quantile(np.abs(error), 0.995)) or 1.0
    return histogram(
        "Predicted minus true label",
        "Above 0 the prediction is too high. The outermost bins include all values beyond them.",
        [Series("test examples", error)],
        np.linspace(-reach, reach, BINS + 1),
        (ERROR.text(-reach), "0", ERROR.text(reach)),
    )


def output_histogram(tests: Examples, title: str) -> str:
    """HTML of the histogram of a model output with this title."""
    output = tests.numbers["output"]
    least, largest = float(output.min()), float(output.max())
    ends = least, largest if largest > least else least + 1
    return histogram(
        title[0].upper() + title[1:],
        "Mean over the checkpoints.",
        [Series("test examples", output)],
        np.linspace(*ends, BINS + 1),
        (OUTPUT.text(ends[0]), "", OUTPUT.text(ends[1])),
    )
