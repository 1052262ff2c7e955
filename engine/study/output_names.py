"""The model outputs that a person can have explained, by the names that they write.

    margin                the margin of the true label (the default of classification)
    predicted             the margin of the predicted class
    class:Coat            the margin of a class
    Coat>Shirt            Coat rather than Shirt: the difference of two logits
    tokens:1,3            tokens 1 and 3 of the target
    rather-than:Lyon      the target rather than the text “Lyon”
    timesteps:1-100       timesteps 1 to 100 of a diffusion model

These are choices of classification, of generated texts and of diffusion; each task has its own
(`engine.tasks.Task.choices`). Names of classes are written as they are. One that makes a name
ambiguous is written in double quotes, as in JSON: `"a>b">c`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from engine.store.errors import DataloupeError, UnknownName
from engine.store.records import OutputChoice
from engine.store.text import counted
from engine.study.nearest import did_you_mean, nearest
from engine.study.reader import StudyReader

SLOT = "{}"
_FORMS = {0: (), 1: ("NAME",), 2: ("A", "B")}
_OTHER_FORMS = {"tokens": ("1,2",), "text": ("TEXT",), "range": ("1-100",)}
_PLAIN = re.compile(r"[\w ./,'&()+-]+")
_FEW = 200
"""Classes that are compared with an unknown name."""


@dataclass(frozen=True)
class NamedOutput:
    """A choice with its classes filled in.

    Attributes:
        choice: The chosen output, or family of outputs.
        classes: The chosen classes; none unless it is a family.
    """

    choice: OutputChoice
    classes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name that a person writes. `resolve_output` gives this output for it."""
        return fill(self.choice.name, [_written(name) for name in self.classes])

    @property
    def title(self) -> str:
        """What the scores answer, as part of a sentence."""
        return fill(self.choice.title, self.classes)

    def effects(
        self, label: str | None = None, predicted: str | None = None, target: str | None = None
    ) -> tuple[str, str]:
        """What supporting and opposing training examples did to it, as beginnings of sentences."""
        classes = self._named(label, predicted, target)
        raises, lowers = (
            fill(text, classes)
            if text and text.count(SLOT) <= len(classes)
            else f"{verb} {self.title}"
            for text, verb in ((self.choice.raises, "Raised"), (self.choice.lowers, "Lowered"))
        )
        return raises, lowers

    def question(
        self, label: str | None = None, predicted: str | None = None, target: str | None = None
    ) -> str:
        """The title of a page that explains an example.

        Args:
            label: The example's own; None if it has none.
            predicted: What is predicted for it; None if nothing is.
            target: The text that is expected; None where no text is.
        """
        classes = self._named(label, predicted, target)
        if len(classes) < self.choice.question.count(SLOT):
            return f"What determines {self.title}?"
        other = self.choice.contrary and predicted is not None and predicted not in classes
        return fill(self.choice.contrary if other else self.choice.question, classes)

    def _named(
        self, label: str | None, predicted: str | None, target: str | None
    ) -> tuple[str, ...]:
        """What stands in the slots of questions and effects."""
        known = {"label": label, "predicted": predicted, "target": target}
        named = known[self.choice.of] if self.choice.of else None
        return self.classes if named is None else (named, *self.classes)


def fill(text: str, classes: Sequence[str]) -> str:
    """A text of a choice with names of classes in its slots."""
    first, *parts = text.split(SLOT)
    return first + "".join(name + part for name, part in zip(classes, parts, strict=False))


def output_choices(study: StudyReader) -> list[OutputChoice]:
    """What can be chosen, the default first. Studies keep this with their data."""
    dataset = study.dataset
    found = [OutputChoice(**choice) for choice in dataset.choices]
    if found:
        return found
    title = dataset.output_title
    return [OutputChoice(dataset.output, title, title, f"What determines {title}?")]


def output_parts(study: StudyReader) -> list[OutputChoice]:
    """The outputs that the default output is the sum of; empty if it has no parts."""
    return [choice for choice in output_choices(study) if choice.part]


def default_output(study: StudyReader) -> NamedOutput:
    """The output whose scores are stored."""
    return NamedOutput(output_choices(study)[0])


def unlabeled_output(study: StudyReader) -> NamedOutput:
    """What is explained of an example without a label unless a person chooses.

    The first output that needs no label; of a family, the member with the first classes.
    """
    choices = [choice for choice in output_choices(study) if choice.of != "label"]
    first = min(choices, key=lambda choice: choice.slots)
    return NamedOutput(first, tuple(study.dataset.classes[: first.slots]))


def resolve_output(study: StudyReader, text: str | None) -> NamedOutput:
    """The output that a person named; None stands for the default.

    Raises:
        UnknownName: There is no such output. DataloupeError: The name means several.
    """
    choices, classes = output_choices(study), study.dataset.classes
    if text is None:
        return NamedOutput(choices[0])
    for choice in choices:
        if not choice.slots and text.strip() == choice.name:
            return NamedOutput(choice)
    found = [
        NamedOutput(choice, names)
        for choice in choices
        if choice.slots
        for names in dict.fromkeys(_readings(text.strip(), choice, classes))
    ]
    if not found:
        hint = _hint(text.strip(), choices, classes)
        known = ", ".join(fill(choice.name, _form(choice)) for choice in choices)
        raise UnknownName(
            f"There is no output {_short(text)!r} here; there is {known}.{hint}", hint
        )
    if len(found) > 1:
        names = " or ".join(_quoted(one) for one in found[:3])
        raise DataloupeError(
            f"The output {_short(text)!r} can be read in {counted(len(found), 'way')}: "
            f"write {names}."
        )
    if len(set(found[0].classes)) < len(found[0].classes):
        raise DataloupeError(
            f"The output {_short(text)!r} names one class twice: name different classes."
        )
    return found[0]


def concrete(
    study: StudyReader, output: NamedOutput, label: str | None, predicted: str | None
) -> NamedOutput:
    """The output that a choice such as `predicted` stands for, for one example.

    Args:
        label: The example's own; None if it has none.
        predicted: The class that is predicted for it; None if there is none.

    Raises:
        DataloupeError: It depends on a label or a prediction that the example does not have.
    """
    of = output.choice.of
    if of is None or of == "target":  # an example without a target gets what is generated
        return output
    named = label if of == "label" else predicted
    if named is None:
        what = "label" if of == "label" else "predicted class"
        raise DataloupeError(
            f"This example has no {what}, so {output.title} cannot be explained: choose another "
            "output."
        )
    if not output.choice.becomes:
        return output
    family = next(c for c in output_choices(study) if c.name == output.choice.becomes)
    return NamedOutput(family, (named,))


# --- reading a name ------------------------------------------------------------------------------


def _readings(text: str, choice: OutputChoice, classes: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Every way to read a text as the name of a member of a family."""
    parts = choice.name.split(SLOT)
    if not text.startswith(parts[0]):
        return
    for words in _slots(text[len(parts[0]) :], parts[1:]):
        names = [_slot_of(word, choice, classes) for word in words]
        if all(name is not None for name in names):
            yield tuple(name for name in names if name is not None)


def _slots(text: str, parts: list[str]) -> Iterator[tuple[str, ...]]:
    """Every way to cut a text into slots, each followed by one of `parts`."""
    if len(parts) == 1:
        if text.endswith(parts[0]):
            yield (text[: len(text) - len(parts[0])],)
        return
    at = text.find(parts[0])
    while at >= 0:
        for rest in _slots(text[at + len(parts[0]) :], parts[1:]):
            yield text[:at], *rest
        at = text.find(parts[0], at + 1)


def _slot_of(word: str, choice: OutputChoice, classes: Sequence[str]) -> str | None:
    """What a word stands for in a slot of a choice; None if it cannot stand there."""
    if choice.takes == "class":
        return _class_of(word, classes)
    if choice.takes == "tokens":
        numbers = [int(number) for number in re.findall(r"[0-9]+", word)]
        plain = re.fullmatch(r"[0-9]+([ ,]+[0-9]+)*", word.strip()) and min(numbers) > 0
        return ",".join(map(str, sorted(set(numbers)))) if plain else None
    if choice.takes == "range":
        ends = re.fullmatch(r"([0-9]+) *[-–] *([0-9]+)", word.strip())
        first, last = map(int, ends.groups()) if ends else (0, 0)
        return f"{first}-{last}" if 0 < first <= last else None
    return _unquoted(word.strip()) or None


def _unquoted(word: str) -> str:
    if len(word) > 1 and word[0] == word[-1] == '"':
        try:
            found = json.loads(word)
        except ValueError:
            return word
        return str(found)
    return word


def _class_of(word: str, classes: Sequence[str]) -> str | None:
    """The class that a word names: as it is, without spaces around it, or in double quotes."""
    if word in classes:
        return word
    word = word.strip()
    if word in classes:
        return word
    if len(word) > 1 and word[0] == word[-1] == '"':
        try:
            name = json.loads(word)
        except ValueError:
            return None
        return name if name in classes else None
    return None


def _written(name: str) -> str:
    """A class as it is written in a name: in quotes where its characters could mean something."""
    plain = _PLAIN.fullmatch(name) and name == name.strip()
    return name if plain else json.dumps(name, ensure_ascii=False)


def _quoted(output: NamedOutput) -> str:
    names = [json.dumps(name, ensure_ascii=False) for name in output.classes]
    return fill(output.choice.name, names)


# --- hints ---------------------------------------------------------------------------------------


def _hint(text: str, choices: Sequence[OutputChoice], classes: Sequence[str]) -> str:
    """A “Did you mean” sentence for a name that is none."""
    families = [choice for choice in choices if choice.slots and choice.takes == "class"]
    near = [
        NamedOutput(choice, names).name
        for choice in families
        if text.startswith(first := choice.name.partition(SLOT)[0])
        for names in _near(text.removeprefix(first), choice, classes)
    ]
    if not near:
        own = did_you_mean(text, [choice.name for choice in choices if not choice.slots])
        if own:
            return own
        # The bare name of a class.
        single = [choice for choice in families if choice.slots == 1]
        near = [NamedOutput(c, names).name for c in single for names in _near(text, c, classes)]
    *others, last = [repr(name) for name in dict.fromkeys(near)][:3] or [""]
    known = f"{', '.join(others)} or {last}" if others else last
    return f" Did you mean {known}?" if known else ""


def _near(text: str, choice: OutputChoice, classes: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """The classes most like those in a text, which lacks the beginning of the choice's name."""
    for words in _slots(text, choice.name.split(SLOT)[1:]):
        names = [_nearest_class(word.strip(), classes) for word in words]
        known = tuple(name for name in names if name is not None)
        if len(set(known)) == len(words):
            yield known


def _nearest_class(word: str, classes: Sequence[str]) -> str | None:
    if word in classes:
        return word
    return next(iter(nearest(word, classes[:_FEW], 1)), None)


def _form(choice: OutputChoice) -> tuple[str, ...]:
    return _OTHER_FORMS.get(choice.takes) or _FORMS[choice.slots]


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "…"
