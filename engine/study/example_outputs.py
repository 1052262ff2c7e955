"""The outputs of one example that can be explained: which are stored, which are computed live."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from engine.data.tokens import target_pieces
from engine.store.errors import DataloupeError
from engine.store.layout import Split
from engine.store.quantities import predicted_text
from engine.store.records import ExampleOutput, OutputChoice
from engine.study.capabilities import has
from engine.study.examples import read_texts_of
from engine.study.live_and_maps import has_live, read_live, training_feature_paths
from engine.study.models import has_predictions, read_predictions, read_probabilities
from engine.study.names import read_names_of
from engine.study.output_names import NamedOutput, concrete, default_output, output_choices
from engine.study.reader import StudyReader

TARGET = "target"
"""Column of the text that is expected, where texts are generated."""


@dataclass(frozen=True)
class Known:
    """What outputs such as `predicted` depend on.

    Attributes:
        label: The example's own; None if it has none.
        predicted: What is predicted for it; None before it is predicted.
        likeliest: All classes, the likeliest first where they have probabilities.
        target: The text that is expected; None where no text is.
        rival: A text that might have been predicted instead of the right one.
        timesteps: How many there are, where outputs can be of a range of them.
    """

    label: str | None
    predicted: str | None
    likeliest: tuple[str, ...]
    target: str | None = None
    rival: str | None = None
    timesteps: int | None = None

    def is_stored(self, study: StudyReader, output: NamedOutput) -> bool:
        """Whether the stored scores answer for this output of the example, too."""
        default = default_output(study)
        if output == default:
            return True
        try:
            mine, stored = (
                concrete(study, one, self.label, self.predicted) for one in (output, default)
            )
        except DataloupeError:
            return False
        return mine == stored

    def question(self, study: StudyReader, output: NamedOutput) -> str:
        """The title of a page that explains the output."""
        return self.in_words(study, output).question(self.label, self.predicted, self.target)

    def in_words(self, study: StudyReader, output: NamedOutput) -> NamedOutput:
        """The output with target tokens as people read them, in place of their numbers."""
        if output.choice.takes != "tokens" or self.target is None:
            return output
        pieces = target_pieces(self.target, study.dataset.encoding)
        numbers = [int(number) for number in output.classes[0].split(",")]
        found = [pieces[number - 1] for number in numbers if number <= len(pieces)]
        return NamedOutput(output.choice, ("”, “".join(found),))

    def suggested(self, choice: OutputChoice) -> NamedOutput:
        """A choice with the classes that are most likely to be of interest.

        One class: the likeliest that neither the label nor the prediction is. Two: what is
        predicted rather than the label or, where they agree, rather than the runner-up. Of tokens
        the first; as another text, the rival; of timesteps the first tenth.
        """
        if choice.takes == "tokens":
            return NamedOutput(choice, () if self.target is None else ("1",))
        if choice.takes == "range":
            last = max(1, (self.timesteps or 0) // 10)
            return NamedOutput(choice, () if self.timesteps is None else (f"1-{last}",))
        if choice.takes == "text":
            return NamedOutput(choice, () if self.rival is None else (self.rival,))
        named = [name for name in (self.predicted, self.label) if name in self.likeliest]
        others = [name for name in self.likeliest if name not in named]
        order = [*others, *named] if choice.slots == 1 else [*named, *others]
        return NamedOutput(choice, tuple(dict.fromkeys(order))[: choice.slots])


def read_known(study: StudyReader, split: Split, row: int, algorithm: str) -> Known:
    """What outputs of one of the study's examples depend on."""
    label = predicted = None
    classes = study.dataset.classes
    if study.dataset.labels != "none":
        label = str(read_names_of(study, split, [row])[0]["label"])
    if has_predictions(study, algorithm):
        answer = read_predictions(study, split, algorithm)["predicted"].iloc[row]
        predicted = predicted_text(answer)
        if has(study, "classes") and has(study, "outcomes"):
            probabilities = read_probabilities(study, split, row, algorithm)
            return Known(label, predicted, by_likelihood(classes, probabilities))
    timesteps = study.dataset.encoding.get("timesteps")
    known = Known(label, predicted, by_likelihood(classes, None), timesteps=timesteps)
    target = target_of(study, split, row)
    if target is None:
        return known
    rival = _rival(study, split, row, algorithm, target)
    if predicted is not None and rival != predicted:  # the target, however it is decoded
        predicted = target
    return replace(known, predicted=predicted, target=target, rival=rival)


def target_of(study: StudyReader, split: Split, row: int) -> str | None:
    """The text that is expected of an example; None where no text is."""
    if not has_targets(study):
        return None
    return str(read_texts_of(study, split, TARGET, [row])[0])


def has_targets(study: StudyReader) -> bool:
    """Whether examples have a text that is expected."""
    return any(choice.takes == "text" for choice in output_choices(study))


def _rival(study: StudyReader, split: Split, row: int, algorithm: str, target: str) -> str | None:
    """What is predicted, if it is wrong, else the text that is predicted most for others."""
    if not has_predictions(study, algorithm):
        return None
    predicted = read_predictions(study, split, algorithm)["predicted"]
    if not read_predictions(study, split, algorithm)["correct"].iloc[row]:
        return str(predicted.iloc[row])
    others = predicted[~predicted.isin([target, predicted.iloc[row], ""])]
    return None if others.empty else str(others.value_counts().index[0])


def by_likelihood(classes: Sequence[str], probabilities: np.ndarray | None) -> tuple[str, ...]:
    """The classes, the likeliest first where they have probabilities."""
    if probabilities is None:
        return tuple(classes)
    return tuple(classes[place] for place in np.argsort(-probabilities, kind="stable"))


def outputs_of(study: StudyReader, row: int, algorithm: str) -> list[ExampleOutput]:
    """What can be explained of a test example; families with the classes of most interest."""
    known = read_known(study, "test", row, algorithm)
    found = []
    for choice in output_choices(study):
        output = known.suggested(choice)
        if len(output.classes) == choice.slots:
            found.append(
                ExampleOutput(
                    name=output.name,
                    title=output.title,
                    question=known.question(study, output),
                    stored=known.is_stored(study, output),
                )
            )
    return found


def live_missing(study: StudyReader, algorithm: str) -> str:
    """What is missing to compute scores live, one sentence; empty if nothing is."""
    if algorithm in study.uploads:
        return "Nothing is kept of uploads to compute scores of other outputs."
    if not has_live(study, algorithm):
        return (
            "Scores of other outputs need checkpoints prepared for live queries: run "
            f"`dataloupe build {study.root}`."
        )
    live = read_live(study, algorithm)
    if not live.checkpoints:
        return (
            f"Scores of other outputs need checkpoints kept for live queries: {live.reason}. Set "
            "`checkpoints` under [live] in study.toml, then build."
        )
    for checkpoint in range(live.checkpoints):
        for path in training_feature_paths(study, algorithm, checkpoint):
            if not path.exists():
                return (
                    f"Scores of other outputs need {path.relative_to(study.root)}, which is "
                    f"missing: run `dataloupe build {study.root}`."
                )
    return ""
