"""The code that a study names, and whether this machine's user trusted it.

What is trusted, and how code is loaded, is `engine.store.trust`. The checks here come early, so
that nothing is computed before a person hears that code is not trusted; `load_code` checks again.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.store.errors import UntrustedCode
from engine.store.trust import (
    PREFIX,
    Code,
    is_trusted,
    search_current_folder,
    trust,
    untrusted_text,
)
from engine.study.reader import StudyReader


@dataclass(frozen=True)
class Named:
    """Code, and the key that names it."""

    where: str
    code: Code

    def __str__(self) -> str:
        return f"{self.where} = {self.code}"


def named_code(study: StudyReader) -> list[Named]:
    """All code that the study names: in study.toml, and in the descriptions of its uploads."""
    source = study.spec.data.source
    found = [Named("data.source", Code.of(source))] if source.startswith(PREFIX) else []
    if study.spec.task.name.startswith(PREFIX):
        found.append(Named("task.name", Code.of(study.spec.task.name)))
    for name, spec in study.algorithms.items():
        if spec.architecture.startswith(PREFIX):
            where = "algorithms" if name in study.spec.algorithms else "uploads"
            code = Code.of(spec.architecture, spec.architecture_options)
            found.append(Named(f"{where}.{name}.architecture", code))
    return found


def untrusted_code(study: StudyReader) -> list[Named]:
    """The code that the study names and that is not trusted."""
    return [one for one in named_code(study) if not is_trusted(study.root, one.code)]


def require_trust(study: StudyReader) -> None:
    """Raise UntrustedCode, with the command to run, unless all code of the study is trusted."""
    if unknown := untrusted_code(study):
        raise UntrustedCode(untrusted_text(study.root, [str(one) for one in unknown]))
    if named_code(study):
        search_current_folder()  # workers on this machine and on a cluster inherit the path


def trust_study(study: StudyReader) -> list[Named]:
    """Trust all code that the study names now; return it."""
    found = named_code(study)
    if found:
        trust(study.root, [one.code for one in found])
    return found
