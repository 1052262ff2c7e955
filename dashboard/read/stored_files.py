"""The files of a study, and the report on whether they are intact."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from engine import store
from engine.store import layout
from engine.store.cache import stamp_of
from engine.store.walk import files_below
from engine.study.doctor import Report, examine
from engine.study.reader import StudyReader


@dataclass(frozen=True)
class StoredFile:
    """One file of a study: size in bytes, modification time in seconds since 1970."""

    path: Path
    size: int
    changed: float


def stage_files(study: StudyReader, stage: str, algorithm: str) -> list[StoredFile]:
    """The files a stage has written so far."""
    found = []
    for folder in layout.stage_folders(study.root, stage, algorithm):
        for path in files_below(folder):
            stamp = None if path.name.startswith(".") else stamp_of(path)
            if stamp is not None:
                found.append(StoredFile(path, stamp[1], stamp[0] / 1e9))
    return found


def files_stamp(study: StudyReader) -> str:
    """Fingerprint of names, sizes and times of all files of the study except its jobs' files."""
    paths = [
        path
        for path in files_below(study.root)
        if not path.name.startswith(".") and layout.jobs_folder(study.root) not in path.parents
    ]
    return store.fingerprint_of([(str(path), stamp_of(path)) for path in paths])


@st.cache_resource(max_entries=4, show_spinner=False)
def examined(_study: StudyReader, stamp: str) -> Report:
    """The report of reading every file of the study, cached until a file changes."""
    return examine(_study)
