"""Image multi-label: pictures of one shape, any number of classes each."""

from __future__ import annotations

from engine.tasks import image_classification
from engine.tasks.multilabel import multilabel_task

TASK = multilabel_task(image_classification.TASK, "image-multilabel")
