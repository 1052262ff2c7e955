"""Provenance: the data, code and settings behind a study, and how far it is built."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version

from dashboard.api.answer import Answer
from dashboard.api.head import Head, head_of
from dashboard.api.query import Query, built
from dashboard.read.stored_files import stage_files
from engine.store import layout
from engine.study.methods import imported_methods, scored_methods
from engine.study.progress import stage_progress
from engine.study.stage_titles import TITLES

PACKAGES = ("dataloupe", "numpy", "pandas", "pyarrow", "faiss-cpu", "streamlit", "torch")
"""Packages whose versions matter to what is stored and shown."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A stage of the build.

    Attributes:
        name, title: Its name, and that for people.
        done, total: Its steps.
        files, bytes: What it wrote so far.
    """

    name: str
    title: str
    done: int
    total: int
    files: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Imported:
    """Scores that another tool made: the tool, and SHA-256 of each file they came from."""

    method: str
    tool: str | None
    files: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Provenance(Head):
    """The data, code and settings behind a study.

    Attributes:
        folder: Of the study, on the server.
        algorithms: Learning algorithms and uploads.
        methods: Methods with stored scores of the algorithm.
        source, task: Of the data; null before they are read.
        encoding: How rows became tensors, as text.
        notes, warnings: What was found while the data were read.
        stages: How far the study is built.
        imported: Scores that other tools made.
        spec: The text of study.toml.
        packages: Versions of this server's packages.
        commands: What builds, verifies and serves the study.
    """

    folder: str
    algorithms: list[str]
    methods: list[str]
    source: str | None
    task: str | None
    encoding: dict[str, str]
    notes: list[str]
    warnings: list[str]
    stages: list[Stage]
    imported: list[Imported]
    spec: str
    packages: dict[str, str]
    commands: list[str]


def answer(query: Query) -> Answer:
    """The data, code and settings behind the study. It answers before anything is built, too."""
    study = query.study
    algorithm, method = built(query)
    dataset = study.dataset if study.has_data else None
    stages = []
    for step in stage_progress(study):
        if step.algorithm in (None, algorithm):
            files = stage_files(study, step.stage, algorithm)
            stages.append(
                Stage(
                    name=step.stage,
                    title=TITLES[step.stage],
                    done=step.done,
                    total=step.total,
                    files=len(files),
                    bytes=sum(file.size for file in files),
                )
            )
    imported = imported_methods(study, algorithm)
    return Answer(
        Provenance(
            **head_of(study, algorithm, method),
            folder=str(study.root),
            algorithms=list(study.algorithms),
            methods=scored_methods(study, algorithm),
            source=None if dataset is None else dataset.source,
            task=None if dataset is None else dataset.task,
            encoding={}
            if dataset is None
            else {str(key): str(value) for key, value in dataset.encoding.items()},
            notes=[] if dataset is None else dataset.notes,
            warnings=[] if dataset is None else dataset.warnings,
            stages=stages,
            imported=[
                Imported(method=name, tool=one.tool, files=one.files)
                for name, one in imported.items()
            ],
            spec=layout.spec_file(study.root).read_text(encoding="utf-8"),
            packages={name: version(name) for name in PACKAGES},
            commands=[f"dataloupe {verb} {study.root}" for verb in ("build", "doctor", "serve")],
        )
    )
