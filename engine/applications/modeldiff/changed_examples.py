"""Test examples and how transformations change them, whatever they are: pictures or texts.

changes = TestExamples.read(study, rows)
changes.names(options)                # what can be tried
changes.changed("append", 1.0, {"suffix": "not"})   # arrays as models take them
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.applications.modeldiff.text_transformations import (
    TEXT_TRANSFORMATIONS,
    apply_to_texts,
    missing_options,
)
from engine.applications.modeldiff.transformations import TRANSFORMATIONS, applicable, apply
from engine.build.tasks import task_of
from engine.store import layout
from engine.store.errors import DataloupeError
from engine.store.spec import validate_options
from engine.study.capabilities import has
from engine.study.examples import TEXT, read_stacked_arrays, read_texts_of
from engine.study.reader import StudyReader


def are_texts(study: StudyReader) -> bool:
    """Whether texts are transformed; examples with a picture, too, are transformed as pictures."""
    return has(study, "texts") and not has(study, "pictures")


def title_of(name: str) -> str:
    """Display name of a transformation of pictures or texts."""
    if name in TEXT_TRANSFORMATIONS:
        return TEXT_TRANSFORMATIONS[name].title
    return TRANSFORMATIONS[name].title


def offered(study: StudyReader) -> list[str]:
    """Names of the transformations that apply to the examples of a study."""
    if are_texts(study):
        return list(TEXT_TRANSFORMATIONS)
    return applicable(study.dataset.encoding.get("shape", [1])[0])


def check_names(study: StudyReader, names: Sequence[str]) -> None:
    """Raise DataloupeError for a transformation that the study's examples do not have."""
    known = TEXT_TRANSFORMATIONS if are_texts(study) else TRANSFORMATIONS
    for name in names:
        if name not in known:
            raise DataloupeError(
                f"There is no transformation {name!r}; choose one of {', '.join(known)}."
            )


def tried(study: StudyReader, options: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Names of all transformations that apply and lack no option."""
    return [
        name
        for name in offered(study)
        if name not in TEXT_TRANSFORMATIONS or not missing_options(name, options.get(name, {}))
    ]


@dataclass(frozen=True)
class TestExamples:
    """Some test examples.

    Attributes:
        arrays: As models take them.
        texts: What they say; None for pictures.
    """

    study: StudyReader
    arrays: dict[str, np.ndarray]
    texts: list[str] | None

    @classmethod
    def read(cls, study: StudyReader, rows: np.ndarray) -> TestExamples:
        """The examples of these test rows."""
        arrays = {n: np.asarray(v[rows]) for n, v in read_stacked_arrays(study, "test").items()}
        texts = None
        if are_texts(study):
            texts = [text or "" for text in read_texts_of(study, "test", TEXT, rows)]
        return cls(study, arrays, texts)

    def changed(
        self, name: str, intensity: float, options: Mapping[str, Any]
    ) -> dict[str, np.ndarray]:
        """Their arrays after a transformation. Raises as `apply` and `apply_to_texts`."""
        if self.texts is None:
            return {**self.arrays, "input": apply(name, self.arrays["input"], intensity, options)}
        task = task_of(self.study)
        own = validate_options(
            task.options, self.study.spec.task, layout.spec_file(self.study.root)
        )
        labels = self.arrays["label"].tolist()
        rows = [
            {"input": text, "label": label, "id": f"test example {place}"}
            for place, (text, label) in enumerate(
                zip(apply_to_texts(name, self.texts, intensity, options), labels, strict=True)
            )
        ]
        return dict(task.encode(rows, own, self.study.dataset.encoding).arrays)
