"""Text regression: texts, a number as label, squared error."""

from __future__ import annotations

from engine.tasks import text_classification, text_options
from engine.tasks.regression import LabelScale, regression_task


class Options(text_options.Options, LabelScale):
    """`[task]` of a text regression study."""


TASK = regression_task(text_classification.TASK, "text-regression", Options)
