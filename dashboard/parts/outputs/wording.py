"""What the scores of an output answer, in words: the title of a page, captions of its groups."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np

from dashboard.names import short
from dashboard.parts.layout.page_title import title
from dashboard.read.rows_in_words import having
from dashboard.read.studies import Examples
from engine.store.quantities import PREDICTIONS, predicted_text
from engine.study.example_outputs import Known
from engine.study.output_names import NamedOutput
from engine.study.reader import StudyReader


def question_title(
    study: StudyReader, output: NamedOutput, example: Mapping[Hashable, Any], known: Known
) -> str:
    """HTML of the title of a page that explains an output of a test example."""
    kind = study.dataset.predicted
    id_, label = short(example["id"]), short(example["label"])
    if "predicted" not in example:
        return title(label or id_, id_ if label else "")
    predicted = short(predicted_text(example["predicted"], kind))
    predicts = f"{PREDICTIONS[kind].name} {predicted}"
    if "correct" not in example:
        labeled = f", labeled {label}" if label else ""
        caption = f"for {id_}{labeled}, {predicts}"
    elif example["correct"]:
        caption = f"for {id_}, correct"
    else:
        which = f", which is {label}" if label else ""
        caption = f"for {id_}{which}, {predicts}"
    return title(question(study, output, known), caption)


def question(study: StudyReader, output: NamedOutput, known: Known) -> str:
    """What the scores of an output answer, with shortened names."""
    return shortened(known.in_words(study, output)).question(*_names(known))


def _names(known: Known) -> tuple[str | None, ...]:
    """The label, the prediction and the target of an example, shortened."""
    named = known.label, known.predicted, known.target
    return tuple(None if name is None else short(name) for name in named)


def shortened(output: NamedOutput) -> NamedOutput:
    """The output with short names of classes, for display."""
    return NamedOutput(output.choice, tuple(short(name) for name in output.classes))


def influence_words(
    study: StudyReader,
    training: Examples,
    support: np.ndarray,
    oppose: np.ndarray,
    output: NamedOutput,
    known: Known,
) -> tuple[str, str]:
    """Captions of the supporting and the opposing training examples.

    Args:
        output: As it is for this example (`engine.study.output_names.concrete`).
        known: What is known of the example.
    """
    words = shortened(known.in_words(study, output)).effects(*_names(known))
    raises, lowers = (f"{text}." for text in words)
    predicted = known.predicted
    if output.choice.takes != "class" or not output.classes:
        return raises, lowers
    first = output.classes[0]
    rivals = [*output.classes[1:], *([] if predicted is None else [predicted])]
    rival = next((name for name in rivals if name != first and name in training.classes), None)
    raises += having(training, support, first, "have this label")
    if rival is None:
        return raises, lowers + having(training, oppose, first, "have this label")
    return raises, lowers + having(training, oppose, rival, f"are labeled “{short(rival)}”")
