"""Names of outputs that a person writes: all that can be read, what is refused, and with what hint.

The classes of each case contain characters that mean something in names.
"""

from __future__ import annotations

import itertools
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import tokenizers

from engine.store.errors import DataloupeError, UnknownName
from engine.store.records import OutputChoice
from engine.study.example_outputs import Known
from engine.study.output_names import (
    NamedOutput,
    concrete,
    output_choices,
    resolve_output,
    unlabeled_output,
)
from engine.study.reader import StudyReader
from engine.tasks import load_task
from engine.tasks.classification import CHOICES, CLASS, RATHER

PLAIN = ("Coat", "Shirt", "T-shirt/top", "Ankle boot")
HARD = (
    "a",
    "b>c",
    "a>b",
    "c",
    'q"x',
    "class:Coat",
    "Coat",
    " sp ",
    "margin",
    "{}",
    "",
    "ü: ñ",
    "→",
)


def study_of(*classes: str, choices: tuple[OutputChoice, ...] = CHOICES) -> StudyReader:
    """What the functions read of a study."""
    dataset = SimpleNamespace(
        classes=list(classes),
        choices=[asdict(choice) for choice in choices],
        output="prediction",
        output_title="the prediction",
    )
    return cast(StudyReader, SimpleNamespace(dataset=dataset, root=Path("study")))


@pytest.mark.input_case
@pytest.mark.parametrize(
    ("classes", "text", "name", "found"),
    [
        (PLAIN, "margin", "margin", ()),
        (PLAIN, " predicted ", "predicted", ()),
        (PLAIN, "class:Coat", CLASS, ("Coat",)),
        (PLAIN, "class: Coat", CLASS, ("Coat",)),
        (PLAIN, "class:T-shirt/top", CLASS, ("T-shirt/top",)),
        (PLAIN, "Coat>Shirt", RATHER, ("Coat", "Shirt")),
        (PLAIN, " Ankle boot > T-shirt/top", RATHER, ("Ankle boot", "T-shirt/top")),
        (HARD, "margin", "margin", ()),
        (HARD, "class:margin", CLASS, ("margin",)),
        (HARD, "class:a>b", CLASS, ("a>b",)),
        (HARD, "a>c", RATHER, ("a", "c")),
        (HARD, '"a>b">c', RATHER, ("a>b", "c")),
        (HARD, 'a>"b>c"', RATHER, ("a", "b>c")),
        (HARD, 'class:"q\\"x"', CLASS, ('q"x',)),
        (HARD, 'class:q"x', CLASS, ('q"x',)),
        (HARD, "class:class:Coat", CLASS, ("class:Coat",)),
        (HARD, "class:Coat>a", RATHER, ("class:Coat", "a")),
        (HARD, 'class:" sp "', CLASS, (" sp ",)),
        (HARD, "{}>ü: ñ", RATHER, ("{}", "ü: ñ")),
    ],
)
def test_a_name_is_read(
    classes: tuple[str, ...], text: str, name: str, found: tuple[str, ...]
) -> None:
    output = resolve_output(study_of(*classes), text)
    assert (output.choice.name, output.classes) == (name, found)


@pytest.mark.input_case
@pytest.mark.parametrize(
    ("classes", "text", "error", "words"),
    [
        (PLAIN, "Coat", UnknownName, "Did you mean 'class:Coat'?"),
        (PLAIN, "coat", UnknownName, "Did you mean 'class:Coat'?"),
        (PLAIN, "class:Shrt", UnknownName, "Did you mean 'class:Shirt'?"),
        (PLAIN, "Cot>Shrit", UnknownName, "Did you mean 'Coat>Shirt'?"),
        (PLAIN, "Margin", UnknownName, "Did you mean 'margin'?"),
        (PLAIN, "zzz", UnknownName, "there is margin, predicted, class:NAME, A>B."),
        (PLAIN, "", UnknownName, "no output ''"),
        (PLAIN, "x" * 10_000, UnknownName, "xxx…"),
        (PLAIN, "Coat>Coat", DataloupeError, "names one class twice"),
        (HARD, "a>b>c", DataloupeError, 'write "a">"b>c" or "a>b">"c"'),
        ((), "class:a", UnknownName, "no output 'class:a'"),
    ],
)
def test_a_name_that_is_none_gets_one_line(
    classes: tuple[str, ...], text: str, error: type[DataloupeError], words: str
) -> None:
    with pytest.raises(error) as caught:
        resolve_output(study_of(*classes), text)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_output_has_a_name_that_gives_it_back() -> None:
    study = study_of(*HARD)
    for choice in output_choices(study):
        for names in itertools.permutations(HARD, choice.slots):
            output = NamedOutput(choice, names)
            assert resolve_output(study, output.name) == output


def test_texts_say_which_classes_are_meant() -> None:
    study = study_of(*HARD)
    rather = resolve_output(study, '"{}">"q\\"x"')
    assert rather.question() == 'Why “{}” rather than “q"x”?'
    assert rather.title == 'the logit of “{}” minus that of “q"x”'
    assert rather.effects()[0] == 'Pulled the model toward “{}” rather than “q"x”'
    margin = resolve_output(study, None)
    assert margin.question("a", "a") == "Why “a”?"
    assert margin.question("a", "c") == "Why not “a”?"
    assert margin.question() == "What determines the margin of the true label?"
    assert resolve_output(study, "predicted").question("a", "c") == "Why “c”?"
    assert resolve_output(study, "class:c").question("a", "a") == "Why not “c”?"


def test_a_task_without_choices_has_its_outputs() -> None:
    study = study_of(choices=())
    assert [choice.name for choice in output_choices(study)] == ["prediction"]
    assert resolve_output(study, None).question("2.5", "2.25") == "What determines the prediction?"
    assert resolve_output(study, None).effects() == (
        "Raised the prediction",
        "Lowered the prediction",
    )
    assert unlabeled_output(study) == resolve_output(study, "prediction")
    assert concrete(study, resolve_output(study, None), None, None).name == "prediction"
    with pytest.raises(UnknownName, match="there is prediction"):
        resolve_output(study, "margin")


LOG_ODDS = "Pulled the model toward “Paris”", "Pulled the model away from “Paris”"
QUESTIONS: list[tuple[str, str, tuple[str, ...], str, tuple[str, str] | None]] = [
    ("image-classification", "margin", ("Coat", "Coat"), "Why “Coat”?", None),
    ("image-classification", "margin", ("Coat", "Shirt"), "Why not “Coat”?", None),
    ("image-classification", "Shirt>Coat", ("Coat",), "Why “Shirt” rather than “Coat”?", None),
    ("text-classification", "predicted", ("Coat", "Shirt"), "Why “Shirt”?", None),
    ("image-multilabel", "class:Coat", ("",), "What speaks for “Coat”?", None),
    ("text-regression", "prediction", ("2", "3"), "What determines the prediction?", None),
    ("image-text", "alignment", (), "What determines how well picture and caption fit?", None),
    (
        *("text-to-text", "log-odds", ("", "Paris", "Paris")),
        *("Why does the model answer “Paris”?", LOG_ODDS),
    ),
    (
        *("text-to-text", "log-odds", ("", "Lyon", "Paris")),
        *("Why does the model not answer “Paris”?", LOG_ODDS),
    ),
    (
        *("text-to-text", "log-likelihood", ("", "Lyon", "Paris")),
        "What makes “Paris” an unlikely answer?",
        ("Made “Paris” a likelier answer", "Made “Paris” a less likely answer"),
    ),
    (
        *("text-to-text", "tokens:1", ("", "Paris", "Paris")),
        "In the answer “Paris”, why “1”?",
        (
            "In the answer “Paris”, pulled the model toward “1”",
            "In the answer “Paris”, pulled the model away from “1”",
        ),
    ),
    (
        *("text-to-text", "rather-than:Lyon", ("", "Lyon", "Paris")),
        "Why “Paris” rather than “Lyon”?",
        (
            "Pulled the model toward “Paris” rather than “Lyon”",
            "Pulled the model away from “Paris”, toward “Lyon”",
        ),
    ),
]


@pytest.mark.parametrize(("task", "name", "known", "question", "effects"), QUESTIONS)
def test_titles_are_questions_that_a_person_asks(
    task: str,
    name: str,
    known: tuple[str, ...],
    question: str,
    effects: tuple[str, str] | None,
) -> None:
    study = study_of("Coat", "Shirt", choices=load_task(task).output_choices)
    output = resolve_output(study, name)
    assert output.question(*known) == question
    if effects is not None:
        assert output.effects(*known) == effects


def test_target_tokens_are_named_by_what_they_are() -> None:
    vocabulary = {"<unk>": 0, "San": 1, "Jose": 2}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, "<unk>"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    study = study_of(choices=load_task("text-to-text").output_choices)
    encoding = {"tokenizer": tokenizer.to_str(), "end": -1, "prefix": "", "max_target_tokens": 8}
    study.dataset.encoding = encoding | {"max_tokens": 8}
    known = Known("", "Lima", (), target="San Jose")
    for name, question in (
        ("tokens:1", "In the answer “San Jose”, why “San”?"),
        ("tokens:1,2", "In the answer “San Jose”, why “San”, “Jose”?"),
        ("log-odds", "Why does the model not answer “San Jose”?"),
    ):
        assert known.question(study, resolve_output(study, name)) == question


def test_outputs_of_one_example() -> None:
    study = study_of(*PLAIN)
    margin, predicted, one, two = output_choices(study)
    wrong = Known("Coat", "Shirt", ("Shirt", "Ankle boot", "Coat", "T-shirt/top"))
    right = Known("Coat", "Coat", ("Coat", "Shirt", "Ankle boot", "T-shirt/top"))
    assert wrong.suggested(one).name == "class:Ankle boot"
    assert wrong.suggested(two).name == "Shirt>Coat"
    assert right.suggested(two).name == "Coat>Shirt"
    for known, name, stored in [
        (wrong, "margin", True),
        (wrong, "class:Coat", True),
        (wrong, "predicted", False),
        (wrong, "Shirt>Coat", False),
        (right, "predicted", True),
        (right, "class:Coat", True),
        (right, "class:Shirt", False),
    ]:
        assert known.is_stored(study, resolve_output(study, name)) is stored, name
    assert concrete(study, NamedOutput(margin), "Coat", "Shirt").name == "class:Coat"
    assert concrete(study, NamedOutput(predicted), "Coat", "Shirt").name == "class:Shirt"
    assert unlabeled_output(study) == NamedOutput(predicted)
    with pytest.raises(DataloupeError, match="has no label, so the margin of the true label"):
        concrete(study, NamedOutput(margin), None, "Coat")
    assert not Known("Coat", None, PLAIN).is_stored(study, NamedOutput(predicted))
