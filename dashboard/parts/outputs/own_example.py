"""What is explained of a person's own example, on the page Live."""

from __future__ import annotations

from html import escape

from dashboard.parts.gallery.example_header import measures, odds, prediction_fact
from dashboard.parts.outputs.chooser import choose_output
from dashboard.parts.outputs.wording import shortened
from engine.applications.live import QueryResult
from engine.data.tokens import ARROW
from engine.store.quantities import CONFIDENCE, OUTPUT
from engine.store.text import counted
from engine.study.example_outputs import Known, by_likelihood, has_targets
from engine.study.output_names import NamedOutput, resolve_output
from engine.study.reader import StudyReader


def own_output(study: StudyReader, name: str | None) -> NamedOutput | None:
    """The output in the URL, if an example without a label has it; None stands for the default."""
    chosen = None if name is None else resolve_output(study, name)
    return None if chosen is None or chosen.choice.of == "label" else chosen


def choose_own_output(study: StudyReader, chosen: NamedOutput, result: QueryResult) -> None:
    """Show the control that chooses what is explained."""
    choose_output(study, chosen, known_of(study, result), result.default)


def known_of(study: StudyReader, result: QueryResult) -> Known:
    """What is known of the example: no label, its prediction and its target, if it has one."""
    likeliest = by_likelihood(study.dataset.classes, result.probabilities)
    predicted, target = str(result.predicted), None
    if result.text is not None and has_targets(study):
        target = result.text.rpartition(ARROW)[2]
    return Known(None, predicted, likeliest, target=target)


def facts(study: StudyReader, result: QueryResult) -> list[tuple[str, str]]:
    """Name and HTML of each fact about the prediction."""
    name, words = prediction_fact(study, result.predicted)
    found = [(name, f"{words}<small>by {counted(result.predicting, 'checkpoint')}</small>")]
    if result.completed is not None:
        found = []  # it is shown what is found
    found += measures(result.measures)
    if result.confidence is not None:
        found.append(("Confidence", escape(CONFIDENCE.text(result.confidence))))
    value, output = OUTPUT.text(result.value), shortened(result.output)
    if result.probabilities is not None and len(output.classes) == 1:
        name, about = "Margin", odds(result.value, output.classes[0])
    else:
        name, about = "Explained", output.title
    return [*found, (name, f"{value}<small>{escape(about)}</small>")]
