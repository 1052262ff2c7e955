"""Uploads: right files are kept under their digest, hostile ones are refused in one line, nothing
of them runs, and nothing is written outside the uploads folder."""

from __future__ import annotations

import io
import json
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine import Study, store
from engine.build.build import build_data
from engine.exchange.uploads import header, room, trial
from engine.exchange.uploads.keeping import Given, accept, delete, expire, rename, trial_worker
from engine.exchange.uploads.report import Request, quick_report
from engine.exchange.uploads.room import incoming, used_bytes
from engine.running.kept_worker import KeptWorker
from engine.store import layout
from engine.store.errors import DataloupeError, StoreError, UploadError
from engine.study.doctor import examine
from engine.study.names import resolve_algorithm
from engine.study.run_banks import wants_bank
from engine.study.uploads import read_uploads, write_upload
from tests.builders.hostile_uploads import (
    Attack,
    fitting_weights,
    framed,
    make_corpus,
    mlp_shapes,
    safetensors,
)
from tests.conftest import SMALL_STUDY

pytestmark = pytest.mark.usefixtures("no_upload_stays")

SHAPES = mlp_shapes(784, 32, 10)
GOOD = safetensors(fitting_weights(SHAPES))
PEAK_MIB = 1200
"""A worker that has torch and a small model takes about 600."""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Data only: no model is needed to refuse one."""
    study = Study.create(tmp_path_factory.mktemp("uploads") / "study", SMALL_STUDY)
    build_data(study)
    return Study.open(study.root)


def named(content: bytes = GOOD, name: str = "model.safetensors") -> Given:
    return Given(name, io.BytesIO(content))


def variant(seed: int) -> bytes:
    return safetensors(fitting_weights(SHAPES, seed))


def everything(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def status(pid: int | str, field: str) -> int:
    """A field of a process's status in MiB."""
    text = Path(f"/proc/{pid}/status").read_text()
    found = re.search(rf"{field}:\s+(\d+) kB", text)
    assert found
    return int(found[1]) // 1024


# --- hostile files -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> list[Attack]:
    folder = tmp_path_factory.mktemp("corpus")
    return make_corpus(folder / "files", fitting_weights(SHAPES), folder / "canary")


def test_the_whole_corpus_is_refused_and_leaves_no_trace(
    study: Study, worker: KeptWorker, corpus: list[Attack]
) -> None:
    assert len(corpus) >= 60
    accept(study, [named()], worker=worker)  # so that the worker has everything loaded
    canary = corpus[0].path.parents[1] / "canary"
    before, around = everything(study.root), everything(study.root.parents[0])
    memory, pid = status("self", "VmRSS"), worker.pid
    for attack in corpus:
        with attack.path.open("rb") as file, pytest.raises(UploadError) as caught:
            accept(study, [Given(attack.name, file)], worker=worker)
        output = str(caught.value)
        assert re.search(attack.says, output), f"{attack.path.name}: {output}"
        assert output.isprintable(), attack.path.name
        assert len(output) < 600, attack.path.name
        assert str(study.root) not in output
    assert not canary.exists()
    assert everything(study.root) == before
    assert everything(study.root.parents[0]) == around
    assert worker.pid == pid  # none made it die or hang
    assert status(worker.pid or 0, "VmHWM") < PEAK_MIB
    assert status("self", "VmRSS") < memory + 100


def test_the_corpus_is_the_same_each_time(corpus: list[Attack], tmp_path: Path) -> None:
    again = make_corpus(
        tmp_path / "files", fitting_weights(SHAPES), corpus[0].path.parents[1] / "canary"
    )
    small = [(a, b) for a, b in zip(corpus, again, strict=True) if a.path.stat().st_size < 10**6]
    assert len(small) > 60
    for one, other in small:
        assert one.path.read_bytes() == other.path.read_bytes()


def test_a_corpus_file_that_is_mended_is_taken(study: Study, worker: KeptWorker) -> None:
    """So the corpus is refused for what is wrong with it, not for anything else."""
    upload = accept(study, [named(GOOD)], worker=worker)
    assert (upload.architecture, upload.architecture_options) == ("mlp", {"widths": [32]})


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    place=st.integers(0, 400),
    change=st.binary(min_size=1, max_size=12),
    cut=st.integers(0, 64),
)
def test_a_damaged_header_is_refused_or_read_right(
    tmp_path: Path, place: int, change: bytes, cut: int
) -> None:
    """Whatever bytes are changed: one clear line, or tensors that lie within the file."""
    broken = GOOD[:place] + change + GOOD[place + len(change) : len(GOOD) - cut]
    path = tmp_path / "file"
    path.write_bytes(broken)
    try:
        entries = header.read_header(path, "file", 2**30)
    except UploadError as error:
        refusal = str(error)
    else:
        refusal = ""
    if refusal:
        assert refusal.isprintable()
        return
    end = max(entry.last for entry in entries.values())
    length = int.from_bytes(broken[:8], "little")
    assert 8 + length + end == len(broken)
    assert all(0 <= entry.first <= entry.last <= end for entry in entries.values())


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    content=st.recursive(
        st.none() | st.booleans() | st.integers(-5, 2**65) | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["dtype", "shape", "data_offsets", "__metadata__", "a"]), inner
            )
        ),
        max_leaves=12,
    )
)
def test_any_json_as_a_header_is_refused(tmp_path: Path, content: object) -> None:
    path = tmp_path / "file"
    path.write_bytes(framed(json.dumps({"x": content}).encode()))
    with pytest.raises(UploadError):
        header.read_header(path, "file", 2**30)


def test_a_process_that_tries_uploads_writes_no_file(worker: KeptWorker, tmp_path: Path) -> None:
    assert worker.call(write_somewhere, tmp_path / "file", 60) == "File too large"


def write_somewhere(path: Path) -> str:
    trial.write_no_file()
    try:
        path.write_bytes(b"x")
    except OSError as error:
        return str(error.strerror)
    return "written"


def test_a_model_that_needs_too_much_memory_is_stopped(study: Study) -> None:
    small = KeptWorker(threads=1, memory_bytes=2**28, idle_seconds=60, waiting_seconds=60)
    wide = safetensors(
        {name: np.ones(shape, np.float32) for name, shape in mlp_shapes(784, 6_000, 10).items()}
    )
    try:
        with pytest.raises(DataloupeError, match=r"memory|ended|cannot be used"):
            accept(study, [named(wide)], worker=small)
    finally:
        small.end()
    assert not study.uploads
    assert not used_bytes(study)


# --- what is taken -------------------------------------------------------------------------------


def test_an_upload_is_kept_under_its_digest_with_what_is_known_of_it(
    study: Study, worker: KeptWorker
) -> None:
    name = "../<b>best\0.safetensors"
    upload = accept(study, [named(name=name)], name=" Mine\n", who="ann@x.org", worker=worker)
    (file,) = upload.files
    path = layout.uploaded_weights_file(study.root, file.sha256)
    assert path.read_bytes() == GOOD
    assert store.file_digest(path) == file.sha256
    assert (upload.name, upload.who, file.name) == ("Mine", "ann@x.org", "<b>best.safetensors")
    assert "28 × 28" in upload.preprocessing
    assert read_uploads(study.root)[upload.id] == upload
    assert resolve_algorithm(study, upload.id) == upload.id
    assert study.checkpoints(upload.id) == 1
    assert not wants_bank(study, upload.id)
    assert upload.indicative
    assert upload.wanted == 4


def test_the_same_files_again_are_the_same_upload(study: Study, worker: KeptWorker) -> None:
    first = accept(study, [named(variant(1)), named(variant(2))], name="one", worker=worker)
    again = accept(study, [named(variant(2)), named(variant(1))], name="two", worker=worker)
    assert again == first
    assert len(study.uploads) == 1


@pytest.mark.parametrize("architecture", ["resnet-small", "resnet9", "mlp"])
def test_built_in_architectures_are_recognised_with_their_options(
    study: Study, worker: KeptWorker, architecture: str
) -> None:
    from engine.models import build_model
    from engine.training.weights import as_arrays

    options = {
        "resnet-small": {"width": 4},
        "resnet9": {"widths": [4, 6, 8]},
        "mlp": {"widths": [9, 7]},
    }
    model = build_model(architecture, options[architecture], study.dataset.encoding, 10, 0)
    content = safetensors(as_arrays(model), {n: "I64" for n in as_arrays(model) if "num_b" in n})
    upload = accept(study, [named(content)], worker=worker)
    assert (upload.architecture, upload.architecture_options) == (
        architecture,
        options[architecture],
    )


def test_an_architecture_that_is_named_must_be_right(study: Study, worker: KeptWorker) -> None:
    assert accept(study, [named()], architecture="mlp", worker=worker)
    with pytest.raises(UploadError, match="does not match the architecture resnet-small"):
        accept(study, [named(variant(1))], architecture="resnet-small", worker=worker)
    for code in ("python:os:system", "timm:resnet18", "no such"):
        with pytest.raises(UploadError, match="neither a built-in"):
            accept(study, [named(variant(1))], architecture=code, worker=worker)


def test_an_ensemble_has_one_architecture_and_at_least_one_file(
    study: Study, worker: KeptWorker
) -> None:
    other = safetensors(fitting_weights(mlp_shapes(784, 31, 10)))
    with pytest.raises(UploadError, match=r"a is mlp .* b is mlp"):
        accept(study, [named(name="a"), named(other, "b")], worker=worker)
    with pytest.raises(UploadError, match="No file"):
        accept(study, [], worker=worker)
    assert not study.uploads
    assert not used_bytes(study)


def test_an_upload_needs_the_study_s_data(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no data yet"):
        accept(Study.create(tmp_path / "empty", SMALL_STUDY), [named()])


# --- quota, expiry, list, rename, delete ----------------------------------------------------------


def bounded(study: Study, **settings: int) -> Study:
    """The same study with other settings of uploads."""
    uploads = study.spec.uploads.model_copy(update=settings)
    return Study(study.root, study.spec.model_copy(update={"uploads": uploads}))


def test_a_hundred_files_and_a_full_quota_are_refused(
    study: Study, worker: KeptWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    hundred = [named(variant(seed)) for seed in range(100)]
    with pytest.raises(UploadError, match="100 files were given; one upload may have at most 32"):
        accept(study, hundred, worker=worker)
    accept(study, [named(variant(0))], worker=worker)
    monkeypatch.setattr(room, "used_bytes", lambda study: 2**20 - len(GOOD) + 1)
    with pytest.raises(UploadError, match="No space"):
        accept(bounded(study, quota_mib=1), [named(variant(1))], worker=worker)
    assert len(study.uploads) == 1


def test_of_many_uploads_at_once_as_many_are_kept_as_there_is_room_for(
    study: Study, worker: KeptWorker
) -> None:
    """A hundred people at once: the quota holds to the byte, whoever comes first."""
    room = bounded(study, quota_mib=1)
    fit = 2**20 // len(GOOD)
    assert 5 < fit < 50

    def give(number: int) -> str:
        try:
            accept(room, [named(variant(number))], worker=worker)
        except UploadError as error:
            return str(error)
        return "kept"

    with ThreadPoolExecutor(100) as people:
        messages = list(people.map(give, range(100)))
    assert messages.count("kept") == fit == len(study.uploads)
    assert used_bytes(study) == fit * len(GOOD)
    assert all(re.match(r"kept|No space: uploads use [\d,]+ of 1 MiB", one) for one in messages)
    assert not list(layout.uploads_folder(study.root).glob(".incoming-*"))


def test_what_arrives_counts_and_what_was_left_behind_does_not(
    study: Study, worker: KeptWorker
) -> None:
    bounded_study = bounded(study, quota_mib=1)
    left_behind = layout.uploads_folder(study.root) / ".incoming-killed"
    left_behind.mkdir()
    for name, size in (("alive", 0), ("0.safetensors", 2**20)):
        (left_behind / name).write_bytes(bytes(size))
    with incoming(bounded_study, [2**19, 2**19 - len(GOOD) + 1]) as paths:
        assert not left_behind.exists()
        with pytest.raises(UploadError, match=r"use 0 of 1 MiB, others .* now use 1,"):
            accept(bounded_study, [named()], worker=worker)
        assert expire(bounded_study) == []
        assert all(path.exists() for path in paths)
    assert accept(bounded_study, [named()], worker=worker).id in study.uploads


def test_a_file_that_is_shorter_than_it_said_is_taken_as_it_is(
    study: Study, worker: KeptWorker
) -> None:
    class Shrinking(io.BytesIO):
        """A file that another process cuts between two looks."""

        def seek(self, place: int, whence: int = 0) -> int:
            return super().seek(place, whence) + (1000 if whence == 2 else 0)

    upload = accept(study, [Given("a.safetensors", Shrinking(GOOD))], worker=worker)
    assert upload.files[0].size == len(GOOD)


def test_uploads_are_renamed_and_deleted_and_share_files(study: Study, worker: KeptWorker) -> None:
    one = accept(study, [named(variant(1))], worker=worker)
    both = accept(study, [named(variant(1)), named(variant(2))], worker=worker)
    assert set(study.uploads) == {one.id, both.id}
    assert rename(study, one.id, "<i>best</i>").name == "<i>best</i>"
    assert study.uploads[one.id].name == "<i>best</i>"
    with pytest.raises(UploadError, match="empty"):
        rename(study, one.id, " \n")
    computed = layout.outputs_file(study.root, one.id, 0, "test")
    store.write_tensors(computed, {"logits": np.zeros(1, np.float32)}, "x")
    delete(study, one.id)
    assert not computed.exists()
    assert [path.stem for path in layout.uploaded_weights_files(study.root)] == sorted(
        file.sha256 for file in both.files
    )
    delete(study, both.id)
    assert not layout.uploaded_weights_files(study.root)
    with pytest.raises(UploadError, match="no upload"):
        delete(study, both.id)


def test_uploads_expire(study: Study, worker: KeptWorker) -> None:
    upload = accept(study, [named()], worker=worker)
    later = datetime.now(UTC) + timedelta(days=8)
    assert expire(study, later) == []
    assert expire(bounded(study, keep_days=9), later) == []
    assert expire(bounded(study, keep_days=7), later) == [upload]
    assert not study.uploads
    assert not used_bytes(study)


def test_a_broken_record_hides_that_upload_alone(study: Study, worker: KeptWorker) -> None:
    one = accept(study, [named(variant(1))], worker=worker)
    other = accept(study, [named(variant(2))], worker=worker)
    layout.upload_file(study.root, one.id).write_text("{")
    assert list(study.uploads) == [other.id]
    write_upload(study.root, one)  # so that it can be deleted with its files


# --- the quick report ----------------------------------------------------------------------------


def test_a_quick_report_agrees_with_what_the_model_says(small_study: Study, tmp_path: Path) -> None:
    """A checkpoint of the study itself, uploaded, is as good as it is and agrees with itself."""
    root = tmp_path / "copy"
    shutil.copytree(small_study.root, root)
    study = Study.open(root)
    content = [
        layout.checkpoint_file(study.root, "mlp", number).read_bytes() for number in range(2)
    ]
    upload = accept(study, [named(c, f"{n}.safetensors") for n, c in enumerate(content)])
    worker = trial_worker(study)
    report = worker.call(quick_report, Request(root, upload.id, "mlp"), 60)
    truth = study.predictions("test", "mlp")
    assert report.accuracy == report.their_accuracy == truth["correct"].mean()
    assert report.by_group == report.their_by_group
    assert (report.agreement, report.differing, report.rows) == (1.0, 0, [])
    lone = accept(study, [named(content[0])], worker=worker)
    report = worker.call(quick_report, Request(root, lone.id, "mlp"), 60)
    worker.end()
    logits = store.read_tensors(layout.outputs_file(study.root, "mlp", 0, "test"))["logits"]
    predicted = np.array(study.dataset.classes)[logits.argmax(axis=1)]
    differ = predicted != truth["predicted"].to_numpy()
    assert report.accuracy == (predicted == study.table("test")["label"]).mean()
    assert report.differing == differ.sum() == len(report.rows)
    assert set(report.rows) == set(np.flatnonzero(differ))
    assert report.predicted == predicted[report.rows].tolist()
    assert report.agreement == pytest.approx(1 - differ.mean())
    assert json.loads(json.dumps(report.to_dict()))["checkpoints"] == 1
    assert replace(report).to_dict() == report.to_dict()


def test_doctor_finds_an_uploaded_file_that_changed(study: Study, worker: KeptWorker) -> None:
    upload = accept(study, [named()], worker=worker)
    assert not examine(study).broken
    path = layout.uploaded_weights_file(study.root, upload.files[0].sha256)
    path.write_bytes(GOOD[:-1] + b"\1")
    assert "it has changed since it was uploaded" in examine(study).broken[0]
