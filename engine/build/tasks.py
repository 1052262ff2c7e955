"""The task of a study: one of Dataloupe's, or the user's own code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.store.errors import SpecError
from engine.store.trust import PREFIX, Code, load_code
from engine.study.reader import StudyReader
from engine.tasks import load_task

if TYPE_CHECKING:
    from engine.tasks import Task


def task_of(study: StudyReader) -> Task:
    """Import and return the task of a study.

    Raises:
        SpecError: There is no such task. UntrustedCode: It is code that this machine's user has
            not trusted.
    """
    name = study.spec.task.name
    if not name.startswith(PREFIX):
        return load_task(name)
    found = load_code(Code.of(name), study.root, ())()
    # By name: a module that was imported twice has a class `Task` of its own.
    if type(found).__name__ != "Task":
        raise SpecError(f"{name!r} returns {found!r}, not an engine.tasks.Task.")
    return found  # type: ignore[no-any-return]
