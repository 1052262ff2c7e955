"""Ways in which a study that somebody sends could run code, each planted in a copy of a study.

Every way leaves a file `ran` where it is told to if any of its code runs. `attempts` opens such a
study through all doors; `code_run_from_study` counts the ways that ran.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import signal
import sqlite3
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine import Study, store
from engine.applications.live import Query, run_query, warm_up
from engine.cli.main import main
from engine.exchange.uploads.header import read_header
from engine.exchange.uploads.match import match
from engine.exchange.uploads.trial import load
from engine.running.jobs import runner
from engine.running.jobs.child import main as run_child
from engine.running.jobs.database import connected, home
from engine.running.jobs.kinds import KINDS
from engine.store import layout
from engine.store.errors import DataloupeError
from engine.store.trust import Code, trust
from engine.study import lock
from engine.study.reader import StudyReader
from tests.builders.copies import copy_of

MLP = 'architecture = "mlp"\narchitecture_options = { widths = [32] }'
SOURCE = 'source = "fashion-mnist"'


@dataclass(frozen=True)
class Planted:
    """A study to be spoiled.

    Attributes:
        root: Its folder, which is also the current folder of whoever opens it.
        marker: The file that any of its code makes.
    """

    root: Path
    marker: Path

    @property
    def code(self) -> str:
        """A Python module that makes the marker when it is imported, and in all its functions."""
        touch = f"open({str(self.marker)!r}, 'w').close()"
        return (
            f"{touch}\n"
            f"def net(encoding, n_classes, **options):\n    {touch}\n"
            f"def data():\n    {touch}\n"
            f"class Net:\n    def __init__(self, *a, **b):\n        {touch}\n"
        )

    def spec(self, old: str, new: str) -> None:
        """Replace a part of study.toml."""
        path = layout.spec_file(self.root)
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    def architecture(self, name: str, options: str = "{}") -> None:
        """Name an architecture."""
        self.spec(MLP, f"architecture = {json.dumps(name)}\narchitecture_options = {options}")

    def module(self, name: str) -> None:
        """Put a module into the study's folder."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.code)

    @property
    def pickled(self) -> bytes:
        """A pickle that makes the marker when it is read."""
        return pickle.dumps(_Touch(str(self.marker)))


class _Touch:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.path, "w")


def _shell(at: Planted) -> None:
    command = json.dumps(f"touch {at.marker}")
    at.architecture("python:subprocess:Popen", f"{{ args = {command}, shell = true }}")


def _system(at: Planted) -> None:
    at.architecture("python:os:system")


def _module(at: Planted) -> None:
    at.module("sent.py")
    at.architecture("python:sent:net")


def _module_deep_inside(at: Planted) -> None:
    at.module("algorithms/mlp/sent.py")
    at.architecture("python:algorithms.mlp.sent:net", "{ width = 3 }")


def _class(at: Planted) -> None:
    at.module("sent.py")
    at.architecture("python:sent:Net")


def _second_algorithm(at: Planted) -> None:
    at.module("sent.py")
    at.spec("[search]", '[algorithms.other]\narchitecture = "python:sent:net"\n\n[search]')


def _source(at: Planted) -> None:
    at.module("sent.py")
    at.spec(SOURCE, 'source = "python:sent:data"')
    layout.dataset_file(at.root).unlink()


def _missing_function(at: Planted) -> None:
    at.module("sent.py")
    at.architecture("python:sent:no_such_function")


def _bytecode(at: Planted) -> None:
    import py_compile

    at.module("sent.py")
    py_compile.compile(str(at.root / "sent.py"), cfile=str(at.root / "hidden.pyc"))
    (at.root / "sent.py").unlink()
    at.architecture("python:hidden:net")


def _upload(at: Planted) -> None:
    at.module("sent.py")
    content: dict[str, object] = {
        "id": "upload-0123456789ab",
        "name": "x",
        "who": "",
        "when": "2026",
    }
    content |= {"architecture": "python:sent:net", "architecture_options": {}, "dataset": ""}
    content |= {"files": [{"sha256": "0" * 64, "size": 1, "name": "x"}], "preprocessing": ""}
    store.write_json(layout.upload_file(at.root, "upload-0123456789ab"), content, "")


def _timm_from_the_hub(at: Planted) -> None:
    at.architecture("timm:hf-hub:evil/model", "{ pretrained = true }")


def _timm_checkpoint(at: Planted) -> None:
    (at.root / "model.pt").write_bytes(at.pickled)
    at.architecture("timm:resnet18", '{ checkpoint_path = "model.pt" }')


def _missing_package(at: Planted) -> None:
    """A module in the study's folder with the name of a package that is not installed here."""
    at.module("timm.py")
    at.architecture("timm:resnet18")


def _shadow(at: Planted) -> None:
    """Modules named like ones that any process imports."""
    for name in ("json.py", "numpy.py", "dashboard.py", "sitecustomize.py", "bottleneck.py"):
        at.module(name)


def _waiting_job(at: Planted) -> None:
    at.module("sent.py")
    at.architecture("python:sent:net")
    _insert(at, "build", {"device": "cpu", "workers": 0, "rebuild": None}, home(at.root))


def _job_of_another_kind(at: Planted) -> None:
    at.module("sent.py")
    for kind in ("python:sent:net", "sent:net", "os:system"):
        _insert(at, kind, {}, home(at.root))


def _job_without_a_home(at: Planted) -> None:
    at.module("sent.py")
    at.architecture("python:sent:net")
    _insert(at, "build", {"device": "cpu", "workers": 0, "rebuild": None}, "")


def _trigger(at: Planted) -> None:
    """A database whose own triggers write another file."""
    with connected(at.root, create=True):
        pass
    connection = sqlite3.connect(layout.jobs_file(at.root))
    with contextlib.suppress(sqlite3.Error):
        connection.execute(
            "CREATE TRIGGER t AFTER INSERT ON jobs BEGIN "
            f"SELECT load_extension('{at.marker}'), writefile('{at.marker}', 'x'); END"
        )
        connection.commit()
    connection.close()


def _insert(at: Planted, kind: str, parameters: dict[str, Any], where: str) -> None:
    with connected(at.root, create=True) as connection:
        connection.execute(
            "INSERT INTO jobs (home, kind, title, parameters, submitted) VALUES (?, ?, 'x', ?, 0)",
            (where, kind, json.dumps(parameters)),
        )


def _pickled_weights(at: Planted) -> None:
    (at.root / "model.safetensors").write_bytes(at.pickled)
    at.spec("checkpoints = 2", 'weights = ["model.safetensors", "model.safetensors"]')


def _pickled_initial_weights(at: Planted) -> None:
    (at.root / "model.pt").write_bytes(at.pickled)
    at.spec("checkpoints = 2", 'checkpoints = 2\ninitial_weights = "model.pt"')


def _pickled_arrays(at: Planted) -> None:
    objects = np.array([_Touch(str(at.marker))], dtype=object)
    names = ("x_train", "y_train", "x_test", "y_test")
    arrays: dict[str, Any] = dict.fromkeys(names, objects)
    np.savez(at.root / "data.npz", **arrays)
    at.spec(SOURCE, 'source = "data.npz"')
    layout.dataset_file(at.root).unlink()


def _dataset_script(at: Planted) -> None:
    """A script of the Hugging Face library, in a folder that reads like a name on its hub."""
    at.module("evil/pets/pets.py")
    at.spec(SOURCE, 'source = "evil/pets"')
    layout.dataset_file(at.root).unlink()


def _task(at: Planted) -> None:
    at.module("sent.py")
    at.spec("[task]", '[task]\nname = "sent"')


def _links(at: Planted) -> None:
    """Logs and locks that lead to another file, such as a shell's start-up file."""
    at.module("sent.py")
    for path in (
        at.root / ".lock",
        layout.job_log_file(at.root, 1),
        layout.runner_log_file(at.root),
        layout.runner_lock_file(at.root),
        layout.quality_file(at.root, "mlp"),
    ):
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)
        path.symlink_to(at.marker)


def _linked_jobs(at: Planted) -> None:
    """A folder of jobs that leads to another folder."""
    at.module("sent.py")
    layout.jobs_folder(at.root).symlink_to(at.marker.parent)
    layout.runner_log_file(at.root).symlink_to(at.marker)


def _trusted_for_other_code(at: Planted) -> None:
    at.module("sent.py")
    trust(at.root, [Code.of("python:other:net"), Code.of("python:sent:net", {"width": 1})])
    at.architecture("python:sent:net", "{ width = 2 }")


def _trusted_then_changed(at: Planted) -> None:
    (at.root / "sent.py").write_text("def net(encoding, n_classes): ...")
    at.architecture("python:sent:net")
    trust(at.root, [Code.of("python:sent:net")])
    at.module("sent.py")


def _trust_inside(at: Planted) -> None:
    """A study that brings its own list of trusted studies."""
    at.module("sent.py")
    at.architecture("python:sent:net")
    entry = {"code": [["python:sent:net", ""]], "files": ""}
    content = {"version": 1, "studies": {str(at.root.resolve()): entry}}
    for name in ("trust.json", ".config/dataloupe/trust.json", "dataloupe/trust.json"):
        (at.root / name).parent.mkdir(parents=True, exist_ok=True)
        (at.root / name).write_text(json.dumps(content))


WAYS: dict[str, Callable[[Planted], None]] = {
    "a shell as architecture": _shell,
    "os.system as architecture": _system,
    "a module in the study": _module,
    "a module deep inside the study": _module_deep_inside,
    "a class": _class,
    "a second algorithm": _second_algorithm,
    "the source of the data": _source,
    "a module without the function": _missing_function,
    "compiled bytecode": _bytecode,
    "the description of an upload": _upload,
    "a timm model of the hub": _timm_from_the_hub,
    "a timm checkpoint": _timm_checkpoint,
    "a module named like a missing package": _missing_package,
    "modules that shadow installed ones": _shadow,
    "a job that waits": _waiting_job,
    "a job of another kind": _job_of_another_kind,
    "a job without a home": _job_without_a_home,
    "triggers in the jobs' database": _trigger,
    "pickled weights": _pickled_weights,
    "pickled initial weights": _pickled_initial_weights,
    "pickled arrays": _pickled_arrays,
    "a script of a dataset": _dataset_script,
    "the name of a task": _task,
    "logs and locks that are links": _links,
    "a folder of jobs that is a link": _linked_jobs,
    "trusted for other code": _trusted_for_other_code,
    "trusted, then changed": _trusted_then_changed,
    "a list of trusted studies inside": _trust_inside,
}


def attempts(root: Path) -> dict[str, Callable[[], object]]:
    """Door → what a user of the study does there; none may run the study's code."""

    def command(*arguments: object) -> Callable[[], object]:
        return lambda: main([str(argument) for argument in arguments])

    def study() -> StudyReader:
        return StudyReader.open(root)

    def jobs() -> None:
        for name, kind in KINDS.items():
            request = {"device": "cpu", "workers": 0} if name == "build" else {}
            with contextlib.suppress(DataloupeError, KeyError):  # a request that is not complete
                found = kind.checked(study(), request)
                kind.work(study(), found, lambda done, total, what: None)

    def waiting_jobs() -> None:
        if layout.jobs_file(root).exists():
            with connected(root) as connection:
                connection.execute("UPDATE jobs SET status = 'running', attempt = 1")
                numbers = [row["id"] for row in connection.execute("SELECT id FROM jobs")]
            handler = signal.getsignal(signal.SIGTERM)
            for number in numbers:
                run_child(root, number, 1)
            signal.signal(signal.SIGTERM, handler)

    def locks() -> None:
        with contextlib.suppress(DataloupeError), lock.locked(study()):
            pass
        with contextlib.suppress(DataloupeError), runner._lock(root):
            pass

    def upload() -> None:
        opened, path = study(), layout.checkpoint_file(root, "mlp", 0)
        entries = read_header(path, "mine", 2**30)
        found = match(entries, "mine", opened.dataset, opened.spec.algorithms, None, root)
        load(opened, path, "mine", found)

    query = Query(root, next(iter(study().spec.algorithms)), {"picture": b""})
    return {
        "build": command("build", root, "--device", "cpu", "--workers", 0),
        "doctor": command("doctor", root),
        "evaluate": command("evaluate", root),
        "explain": command("explain", root, "--test", 0),
        "trust, without a terminal": command("trust", root),
        "live": lambda: warm_up(query),
        "a live query": lambda: run_query(query),
        "jobs of all kinds": jobs,
        "jobs that wait": waiting_jobs,
        "an upload": upload,
        "locks": locks,
    }


@contextlib.contextmanager
def opened_in(folder: Path) -> Iterator[None]:
    """Work in a folder, without a terminal and with nothing left of it afterwards."""
    before, path, modules = Path.cwd(), list(sys.path), set(sys.modules)
    bytecode = sys.dont_write_bytecode
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
        sys.path[:], sys.dont_write_bytecode = path, bytecode
        for name in set(sys.modules) - modules:
            if name.partition(".")[0] in ("sent", "hidden", "timm", "algorithms", "evil"):
                del sys.modules[name]


def try_way(study: Study, folder: Path, way: str) -> list[str]:
    """Plant a way in a copy of the study and try all doors: those that ran code, or crashed."""
    at = Planted(copy_of(study, folder / "sent").root, folder / "ran")
    WAYS[way](at)
    failed = []
    with opened_in(at.root):
        try:
            doors = attempts(at.root)
        except DataloupeError:  # it cannot even be opened
            doors = {}
        for door, act in doors.items():
            output = io.StringIO()
            try:
                with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
                    act()
            except (DataloupeError, SystemExit):
                pass
            except Exception as error:
                failed.append(f"{door} crashed: {type(error).__name__}: {error}")
            if "Traceback" in output.getvalue():
                failed.append(f"{door} printed a traceback")
            if at.marker.exists():
                failed.append(f"{door} ran code")
                at.marker.unlink()
    return failed


def code_run_from_study(study: Study, folder: Path) -> dict[str, list[str]]:
    """Way → the doors that ran its code, for the ways that ran any."""
    found = {}
    for number, way in enumerate(WAYS):
        place = folder / str(number)
        place.mkdir()
        if failed := [line for line in try_way(study, place, way) if line.endswith("ran code")]:
            found[way] = failed
    return found
