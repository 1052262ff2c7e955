"""Code that a study names: which studies may run it on this machine, and what loads it.

A study can name Python functions: an architecture, or the source of its data. A study that somebody
sends must not run anything, so such code runs only once this machine's user trusted it, by
`dataloupe trust STUDY`. The answer is kept outside the study, in the user's configuration folder,
and holds for

- the study's path: a copy elsewhere is another study,
- the function's name and the options that it is called with,
- the content of all Python files inside the study's folder, which come with the study.

Modules outside the study are the user's own, and may change. Whoever wants to run code named in a
study calls `load_code`; no other function imports it, in whatever process.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib
import importlib.machinery
import inspect
import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.store.errors import DataloupeError, SpecError, UntrustedCode
from engine.store.files import atomic

PREFIX = "python:"
_PYTHON_FILES = tuple(importlib.machinery.all_suffixes())
_VERSION = 1


@dataclass(frozen=True)
class Code:
    """A call that a study names.

    Attributes:
        name: `python:module:function`.
        options: Its keyword arguments, as sorted JSON; empty if it takes none.
    """

    name: str
    options: str = ""

    @classmethod
    def of(cls, name: str, options: Mapping[str, Any] | None = None) -> Code:
        """The call of a function with these options."""
        text = json.dumps(options, sort_keys=True, default=str) if options else ""
        return cls(name, text)

    def __str__(self) -> str:
        return f"{self.name} with {self.options}" if self.options else self.name


# --- loading -------------------------------------------------------------------------------------


def load_code(code: Code, study: Path | None, parameters: Sequence[str]) -> Callable[..., Any]:
    """Import a function that a study names, if this machine's user trusted it.

    Args:
        code: What is to be called.
        study: The study's folder; None: no study, so nobody can have trusted it.
        parameters: Names of the positional parameters that the function must have; all others need
            a default.

    Raises:
        UntrustedCode: It is not trusted. Nothing was imported.
        SpecError: There is no such function, or it is of another kind.
    """
    if study is None or not is_trusted(study, code):
        raise UntrustedCode(untrusted_text(study, [str(code)]))
    module, _, function = code.name.removeprefix(PREFIX).partition(":")
    if module.partition(".")[0] in sys.stdlib_module_names:
        raise SpecError(
            f"{code.name!r} is part of Python itself. Name a function of your own, "
            f"`def {function or 'name'}({', '.join(parameters)})`, in a module of yours."
        )
    search_current_folder()
    sys.dont_write_bytecode = True  # a study's Python files stay as they were when trusted
    try:
        found = getattr(importlib.import_module(module), function)
    except (Exception, SystemExit) as error:  # whatever a module does when it is imported
        reason = " ".join(str(error).split()) or type(error).__name__
        raise SpecError(
            f"{code.name!r} cannot be imported: {reason}. Write it as python:module:function and "
            "run where the module can be imported."
        ) from error
    _check(code.name, found, parameters)
    return found  # type: ignore[no-any-return]


def _check(name: str, found: object, parameters: Sequence[str]) -> None:
    takes = f"that takes ({', '.join(parameters)})" if parameters else "without parameters"
    needed = f"a function {takes}"
    if not inspect.isfunction(found):
        kind = "a class" if inspect.isclass(found) else repr(found)
        raise SpecError(f"{name!r} is {kind}, not a function. Name {needed}.")
    if str(found.__module__).partition(".")[0] in sys.stdlib_module_names:
        raise SpecError(f"{name!r} is {found.__module__}.{found.__qualname__}. Name {needed}.")
    own = list(inspect.signature(found).parameters.values())
    taken = [one for one in own if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    names = [one.name.strip("_") for one in taken[: len(parameters)]]
    required = [
        one.name
        for one in own
        if one not in taken[: len(parameters)]
        and one.default is one.empty
        and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD, one.KEYWORD_ONLY)
    ]
    if names != list(parameters) or required:
        shown = ", ".join(str(one) for one in own)
        raise SpecError(f"{name!r} takes ({shown}). Name {needed}.")


def search_current_folder() -> None:
    """Let a study that is trusted name a module in the current folder.

    The folder comes last, so that it cannot shadow an installed module. Nothing else may search it:
    it can be a folder that somebody sent, with a module named like one that is not installed here.
    """
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)


# --- what is trusted -----------------------------------------------------------------------------


def is_trusted(study: Path, code: Code) -> bool:
    """Whether this machine's user trusted exactly this code of this study, as its files are now."""
    entry = _read().get(_key(study))
    return (
        entry is not None
        and [code.name, code.options] in entry["code"]
        and entry["files"] == python_files_digest(study)
    )


def trust(study: Path, codes: Sequence[Code]) -> None:
    """Trust the code that a study names, and none that it named before."""
    with _changing() as entries:
        entries[_key(study)] = {
            "code": sorted([code.name, code.options] for code in set(codes)),
            "files": python_files_digest(study),
        }


def revoke(study: Path) -> bool:
    """Trust a study no longer. Returns whether it was trusted."""
    with _changing() as entries:
        return entries.pop(_key(study), None) is not None


def trusted_studies() -> dict[str, list[Code]]:
    """Path of each trusted study → the code that was trusted."""
    return {path: [Code(*one) for one in entry["code"]] for path, entry in sorted(_read().items())}


def untrusted_text(study: Path | None, names: Sequence[str]) -> str:
    """What is missing, and the command to run; one line."""
    listed = ", ".join(dict.fromkeys(names))
    if study is None:
        return f"{listed} is code, which runs only where a trusted study names it."
    return (
        f"{study} names code that is not trusted on this machine: {listed}. Nothing of it was run. "
        "Whoever owns this machine can look at it, then run: "
        f"dataloupe trust {shlex.quote(str(study))}"
    )


def python_files_digest(study: Path) -> str:
    """SHA-256 of the names and content of all files in a study's folder that Python can import."""
    digest = hashlib.sha256()
    for folder, folders, files in os.walk(study):
        # A name with a dot cannot be imported: `.venv`, `.git`.
        folders[:] = sorted(name for name in folders if "." not in name)
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        for name in sorted([*links, *(name for name in files if name.endswith(_PYTHON_FILES))]):
            path = Path(folder) / name
            try:
                content = bytes(path.readlink()) if name in links else path.read_bytes()
            except OSError:  # unreadable for Python's import too
                content = b""
            digest.update(json.dumps(str(path.relative_to(study))).encode())
            digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()


def _key(study: Path) -> str:
    return str(study.resolve())


# --- the file ------------------------------------------------------------------------------------


def trust_file() -> Path:
    """Where the answers are kept: in the user's configuration folder, never in a study."""
    chosen = os.environ.get("XDG_CONFIG_HOME", "")
    folder = Path(chosen) if Path(chosen).is_absolute() else Path.home() / ".config"
    return folder / "dataloupe" / "trust.json"


def _read() -> dict[str, dict[str, Any]]:
    path = trust_file()
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            content = file.read()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise DataloupeError(f"{path} cannot be read: {error.strerror}.") from error
    if status.st_uid not in (os.geteuid(), 0) or status.st_mode & 0o022:
        raise DataloupeError(
            f"{path} belongs to another user or can be written by others, so it is not used. "
            f"Make it yours (`chmod 600 {path}`) or remove it, then trust your studies again."
        )
    try:
        found = json.loads(content)
        if found["version"] != _VERSION:
            raise ValueError
        entries: dict[str, dict[str, Any]] = found["studies"]
        for entry in entries.values():
            if not isinstance(entry["files"], str):
                raise TypeError
            for name, options in entry["code"]:
                if not isinstance(name, str) or not isinstance(options, str):
                    raise TypeError
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataloupeError(
            f"{path} is damaged or was written by another version of Dataloupe. Remove it, and "
            "trust your studies again with `dataloupe trust STUDY`."
        ) from error
    return entries


@contextmanager
def _changing() -> Iterator[dict[str, dict[str, Any]]]:
    """All entries, to change; one process at a time."""
    path = trust_file()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise DataloupeError(f"{path} cannot be written: {error.strerror}.") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        entries = _read()
        yield entries
        with atomic(path, mode=0o600) as temporary:
            content = {"version": _VERSION, "studies": entries}
            temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    finally:
        os.close(lock)
