"""Image regression: pictures of one shape, a number as label, squared error."""

from __future__ import annotations

from engine.tasks import image_classification
from engine.tasks.regression import LabelScale, regression_task


class Options(image_classification.Options, LabelScale):
    """`[task]` of an image regression study."""


TASK = regression_task(image_classification.TASK, "image-regression", Options)
