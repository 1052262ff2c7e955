"""Text multi-label: texts, any number of classes each."""

from __future__ import annotations

from engine.tasks import text_classification
from engine.tasks.multilabel import multilabel_task

TASK = multilabel_task(text_classification.TASK, "text-multilabel")
