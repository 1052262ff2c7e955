"""Pictures by reference: the same results as by copies, little on disk, nothing mixed."""

from __future__ import annotations

import io
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.testclient import TestClient

from dashboard.login import picture_key
from dashboard.routes import routes
from engine import Study, store
from engine.applications.brittle import data_issues
from engine.applications.live.answering import explain_stored
from engine.applications.live.queries import Query, StoredQuery
from engine.applications.live.reading import read_example
from engine.build import referencing
from engine.build.run import Run
from engine.build.stages import data
from engine.data.places.decoded import DecodedPictures
from engine.data.places.place import place_of
from engine.data.reading import folders
from engine.data.sources import load_source
from engine.data.thumbnails import crop
from engine.store import layout
from engine.store.errors import DataError, DataloupeError
from engine.store.layout import SPLITS, Split
from engine.store.spec import DataSpec
from engine.study import thumbnails
from engine.study.doctor import examine
from engine.study.examples import read_picture, read_stacked_arrays
from engine.study.references import has_references
from engine.study.thumbnails import read_sheet, read_thumbnail
from tests.builders.referenced_pictures import (
    N_TRAIN,
    jpeg,
    study_of,
    write_folder,
    write_parquet,
    write_plain_parquet,
    write_tar,
)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Study]:
    """A study with copies of its pictures, and the same by reference; both are built."""
    folder = tmp_path_factory.mktemp("references")
    source = write_folder(folder / "source")
    assert source.name == "source"
    found = [study_of(folder / mode, "../source", mode) for mode in ("copy", "reference")]
    for study in found:
        study.build(workers=0, device="cpu")
    return Study.open(found[0].root), Study.open(found[1].root)


@pytest.fixture
def own(both: tuple[Study, Study], tmp_path: Path) -> Study:
    """A built study by reference, with a source of its own."""
    shutil.copytree(both[1].root.parent / "source", tmp_path / "source")
    return Study.open(shutil.copytree(both[1].root, tmp_path / "study"))


def read_data(study: Study) -> None:
    data.run(Run(study, "cpu", 0, lambda progress: None))


def test_every_array_of_the_models_is_the_same(both: tuple[Study, Study]) -> None:
    copied, referenced = both
    assert (has_references(referenced), has_references(copied)) == (True, False)
    files = sorted((copied.root / "algorithms").rglob("*.safetensors"))
    assert len(files) > 10
    for file in files:
        wanted = store.read_tensors(file)
        found = store.read_tensors(referenced.root / file.relative_to(copied.root))
        assert found.keys() == wanted.keys()
        for name, array in wanted.items():
            np.testing.assert_array_equal(found[name], array, f"{file}: {name}")


def test_pixels_and_thumbnails_are_the_same(both: tuple[Study, Study]) -> None:
    copied, referenced = both
    for split in SPLITS:
        wanted = read_stacked_arrays(copied, split)["input"]
        found = read_stacked_arrays(referenced, split)["input"]
        assert (found.shape, found.dtype, found.nbytes) == (
            wanted.shape,
            wanted.dtype,
            wanted.nbytes,
        )
        rows = np.array([3, 0, 3, -1, 17])
        np.testing.assert_array_equal(found[rows], wanted[rows])
        np.testing.assert_array_equal(found[4:9], wanted[4:9])
        np.testing.assert_array_equal(found[5], wanted[5])
        assert read_sheet(referenced, split, 0) == read_sheet(copied, split, 0)
    assert read_thumbnail(referenced, "test", 7).tobytes() == (
        read_thumbnail(copied, "test", 7).tobytes()
    )


def test_no_pixel_is_kept(both: tuple[Study, Study]) -> None:
    root = both[1].root / "data"
    assert not [*root.rglob("*.webp")]
    references = layout.references_file(both[1].root, "train", 0)
    assert "input" not in store.read_tensors(layout.arrays_file(both[1].root, "train", 0))
    table = store.read_table(references)
    assert table["place"][0].as_py() == "train/a/000.jpg"
    assert len(table["digest"][0].as_py()) == 16


@pytest.mark.parametrize("write", [write_tar, write_parquet, write_plain_parquet])
def test_tar_and_parquet_files(
    write: Callable[[Path], Path], both: tuple[Study, Study], tmp_path: Path
) -> None:
    source = write(tmp_path / "source")
    found = []
    for mode in ("copy", "reference"):
        study = study_of(tmp_path / mode, source, mode)
        spec = layout.spec_file(study.root)
        if write is not write_tar:  # whose splits have pictures of the same names
            spec.write_text(spec.read_text().replace('id = "file"\n', ""))
        read_data(Study.open(study.root))
        found.append(Study.open(study.root))
    copied, referenced = found
    assert has_references(referenced)
    for split in SPLITS:
        wanted = read_stacked_arrays(copied, split)
        array = read_stacked_arrays(referenced, split)
        np.testing.assert_array_equal(array["input"][:], wanted["input"][:])
        np.testing.assert_array_equal(array["label"][:], wanted["label"][:])
        of_folder = read_stacked_arrays(both[0], split)["input"]
        np.testing.assert_array_equal(
            wanted["input"][np.argsort(_numbers(copied, split))],
            of_folder[np.argsort(_numbers(both[0], split))],
        )
        assert referenced.table(split)["file"].tolist() == copied.table(split)["file"].tolist()
    assert not [*(referenced.root / "data").rglob("*.webp")]
    table = store.read_table(layout.references_file(referenced.root, "train", 0))
    kinds = {place_of(text).inside[0] for text in table["place"].to_pylist()}
    assert kinds == {{write_tar: "t", write_parquet: "p", write_plain_parquet: "b"}[write]}


def _numbers(study: Study, split: Split) -> list[int]:
    """The number in the name of each picture's file."""
    return [int(Path(file).stem) for file in study.table(split)["file"]]


@pytest.mark.parametrize("task", ["image-regression", "image-multilabel"])
def test_other_labels_and_files_that_a_table_names(
    task: str, both: tuple[Study, Study], tmp_path: Path
) -> None:
    source = shutil.copytree(both[0].root.parent / "source", tmp_path / "source")
    for split in SPLITS:
        files = sorted(file.relative_to(source) for file in (source / split).rglob("*.jpg"))
        labels = ["a b" if int(file.stem) % 3 else "b" for file in files]
        if task == "image-regression":
            labels = [file.stem for file in files]
        rows = [f"{file},{label}" for file, label in zip(files, labels, strict=True)]
        (source / f"{split}.csv").write_text("\n".join(["file,label", *rows]) + "\n")
        shutil.move(source / split, source / "kept" / split)
        text = (source / f"{split}.csv").read_text().replace(f"{split}/", f"kept/{split}/")
        (source / f"{split}.csv").write_text(text)
    found = []
    for mode in ("copy", "reference"):
        study = study_of(tmp_path / mode, source, mode)
        spec = layout.spec_file(study.root)
        spec.write_text(spec.read_text().replace("[task]\n", f'[task]\nname = "{task}"\n'))
        read_data(Study.open(study.root))
        found.append(Study.open(study.root))
    assert has_references(found[1])
    for split in SPLITS:
        wanted, arrays = (read_stacked_arrays(study, split) for study in found)
        for name in ("input", "label"):
            np.testing.assert_array_equal(arrays[name][:], wanted[name][:])
        assert found[1].table(split).equals(found[0].table(split))


def test_doctor_and_live_queries(both: tuple[Study, Study]) -> None:
    assert examine(both[1]).broken == []
    picture = {"picture": jpeg(2000)}
    copied, referenced = (read_example(Query(study.root, "net", picture)) for study in both)
    np.testing.assert_array_equal(referenced.arrays["input"], copied.arrays["input"])
    scores = [explain_stored(StoredQuery(study.root, "net", "test", 3)) for study in both]
    np.testing.assert_array_equal(scores[1].support, scores[0].support)


def test_class_folders_are_listed_once(
    both: tuple[Study, Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    listed: Counter[str] = Counter()
    entries = folders._entries
    monkeypatch.setattr(
        folders, "_entries", lambda folder: (listed.update([folder.name]), entries(folder))[1]
    )
    load_source(DataSpec(source=str(both[0].root.parent / "source")), Path("/"))
    assert (listed["a"], listed["b"]) == (2, 2)  # once for each split


def test_a_changed_tar_or_parquet_file_is_refused(tmp_path: Path) -> None:
    for write in (write_tar, write_parquet, write_plain_parquet):
        source = write(tmp_path / write.__name__)
        study = study_of(tmp_path / f"of-{write.__name__}", source, "reference")
        spec = layout.spec_file(study.root)
        spec.write_text(spec.read_text().replace('id = "file"\n', ""))
        read_data(Study.open(study.root))
        first = sorted(source.glob("train*"))[0]
        shutil.copy(sorted(source.glob("test*"))[0], first)
        with pytest.raises(DataError, match=r"(has changed|cannot|does not|no row).*rebuild data"):
            read_stacked_arrays(Study.open(study.root), "train")["input"][:]


def test_a_picture_at_the_size_of_the_models(
    both: tuple[Study, Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.study.examples.size_of_pictures", lambda study: (24, 24))
    wanted, found = (read_picture(study, "train", 2) for study in both)
    assert found.tobytes() == wanted.tobytes()


def test_decoded_ahead_of_being_asked_for(both: tuple[Study, Study]) -> None:
    array = read_stacked_arrays(both[1], "train")["input"]
    assert isinstance(array, DecodedPictures)
    array.ahead(np.arange(20))
    begun = dict(array._begun)
    assert set(begun) == set(range(20))
    wanted = read_stacked_arrays(both[0], "train")["input"][10:30]
    np.testing.assert_array_equal(array[10:30], wanted)
    assert set(array._begun) == set(range(10))


def test_what_is_named_ahead_and_never_asked_for_is_dropped(both: tuple[Study, Study]) -> None:
    array = read_stacked_arrays(both[1], "train")["input"]
    array._most = 8
    for first in range(0, 40, 4):
        array.ahead(np.arange(first, first + 4))
    assert list(array._begun) == [*range(32, 40)]


def test_a_training_decodes_ahead_in_its_own_order(
    both: tuple[Study, Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine.build.models import initial_model
    from engine.build.tasks import task_of
    from engine.training.stepping import Training

    asked: list[list[int]] = []
    ahead = DecodedPictures.ahead
    monkeypatch.setattr(
        DecodedPictures,
        "ahead",
        lambda self, rows: (asked.append(rows.tolist()), ahead(self, rows)),
    )
    study = both[1]
    spec = study.spec.algorithms["net"]
    arrays = read_stacked_arrays(study, "train")
    training = Training(
        task_of(study),
        initial_model(study, spec, 0),
        arrays,
        study.dataset.encoding,
        spec,
        0,
        "cpu",
    )
    with training.running():
        rows = []
        for _ in range(4):
            rows.append(training.rows().tolist())
            training.advance()
        training.step = 1  # as a replay does
        training.losses()
    assert asked[0][:32] == rows[0] + rows[1]
    assert asked[3][:16] == rows[3]
    assert asked[4] == rows[1]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda file: file.write_bytes(jpeg(5)), "has changed since"),
        (lambda file: file.write_bytes(file.read_bytes()[:-40]), "has changed since"),
        (lambda file: file.unlink(), "is no longer there"),
        (lambda file: (file.unlink(), file.mkdir()), "cannot be read: Is a directory"),
    ],
    ids=["other", "truncated", "missing", "folder"],
)
def test_a_changed_picture_is_refused(
    own: Study, change: Callable[[Path], object], says: str
) -> None:
    file = own.root / ".." / "source" / "train" / "a" / "002.jpg"
    change(file)
    array = read_stacked_arrays(own, "train")["input"]
    assert array[:1].shape == (1, 3, 24, 24)
    for read in (lambda: array[:8], lambda: read_thumbnail(own, "train", 1)):
        with pytest.raises(DataError, match=f"The picture {file} {says}") as error:
            read()
        assert "\n" not in str(error.value)
    shutil.rmtree(own.root / "algorithms")
    with pytest.raises(DataloupeError, match=f"The picture {file} {says}"):
        own.build(workers=0, device="cpu")


def test_data_that_are_read_again_take_the_change(own: Study) -> None:
    before = own.dataset.fingerprint
    (own.root.parent / "source" / "train" / "a" / "002.jpg").write_bytes(jpeg(5))
    own.build(workers=0, device="cpu", rebuild="data")
    again = Study.open(own.root)
    assert again.dataset.fingerprint != before
    assert read_stacked_arrays(again, "train")["input"][:8].shape == (8, 3, 24, 24)


def test_a_moved_source_keeps_its_fingerprint(own: Study) -> None:
    """The content counts, not where it lies."""
    before = own.dataset.fingerprint
    (own.root.parent / "source").rename(own.root.parent / "moved")
    spec = layout.spec_file(own.root)
    spec.write_text(spec.read_text().replace("../source", "../moved"))
    again = Study.open(own.root)
    assert read_stacked_arrays(again, "test")["input"][:2].shape == (2, 3, 24, 24)
    again.build(workers=0, device="cpu", rebuild="data")
    assert Study.open(own.root).dataset.fingerprint == before


def test_a_survey_goes_on_where_it_stopped(own: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    surveyed: list[int] = []
    before = own.dataset.fingerprint
    survey = referencing.survey
    monkeypatch.setattr(
        referencing,
        "survey",
        lambda places, ids, folder: (surveyed.append(len(places)), survey(places, ids, folder))[1],
    )
    layout.references_file(own.root, "test", 0).unlink()
    read_data(own)
    assert surveyed == [30]
    assert own.dataset.fingerprint == before


def test_a_copy_of_a_file_is_a_leak(own: Study) -> None:
    source = own.root.parent / "source"
    shutil.copy(source / "train" / "a" / "002.jpg", source / "test" / "a" / "000.jpg")
    own.build(workers=0, device="cpu", rebuild="data")
    again = Study.open(own.root)
    found = data_issues.same_inputs(again)
    assert [len(rows) for rows in found] == [1, *[0] * 29]
    exact, _ = data_issues.training_copies(again, "net")
    assert exact.tolist() == [False] * N_TRAIN


def test_thumbnails_are_made_once_and_kept_within_a_bound(
    both: tuple[Study, Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    make = DecodedPictures.thumbnail
    monkeypatch.setattr(
        DecodedPictures, "thumbnail", lambda self, row: (made.append(row), make(self, row))[1]
    )
    kept = thumbnails._Kept(most=3 * 96 * 96 * 3)
    monkeypatch.setattr(thumbnails, "_KEPT", kept)
    thumbnails.read_thumbnails(both[1], "train", [1, 2])
    thumbnails.read_thumbnails(both[1], "train", [2, 1])
    assert sorted(made) == [1, 2]
    thumbnails.read_thumbnails(both[1], "train", [*range(3, 30)])
    assert kept._bytes <= 3 * 96 * 96 * 3
    made.clear()
    thumbnails.read_thumbnails(both[1], "train", [1])
    assert made == [1]


def test_a_missing_picture_leaves_the_others_of_its_sheet(own: Study) -> None:
    whole = read_sheet(own, "train", 0)
    (own.root.parent / "source" / "train" / "a" / "004.jpg").unlink()
    assert read_sheet(own, "train", 0) == whole  # from memory
    thumbnails._KEPT._pictures.clear()
    found = read_sheet(own, "train", 0)
    assert (whole.whole, found.whole) == (True, False)
    pictures = [Image.open(io.BytesIO(one.content)).convert("RGB") for one in (whole, found)]
    cell = own.dataset.cell
    same = [
        crop(pictures[0], place, cell).tobytes() == crop(pictures[1], place, cell).tobytes()
        for place in range(64)
    ]
    assert same == [place != 2 for place in range(64)]
    key = picture_key(own.dataset.fingerprint)
    client = TestClient(Starlette(routes=routes(own.root)))
    for address, kept in (("train/0", False), ("test/0", True), ("train/of/2-3", False)):
        answer = client.get(f"/dataloupe/sprites/{key}/{address}.webp")
        assert answer.status_code == 200
        assert ("immutable" in answer.headers["cache-control"]) == kept


def test_size_decides_unless_the_study_does(
    both: tuple[Study, Study], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = both[0].root.parent / "source"
    small = study_of(tmp_path / "small", source, "auto")
    read_data(small)
    assert not has_references(Study.open(small.root))
    assert Study.open(small.root).dataset.fingerprint == both[0].dataset.fingerprint
    monkeypatch.setattr(referencing, "MOST_COPIED", 120 * 3 * 24 * 24 - 1)
    large = study_of(tmp_path / "large", source, "auto")
    read_data(large)
    assert has_references(Study.open(large.root))
    assert Study.open(large.root).dataset.fingerprint == both[1].dataset.fingerprint


def test_the_setting_leaves_older_fingerprints_as_they_are(both: tuple[Study, Study]) -> None:
    """`auto` is not part of the fingerprint, because studies from before have no such key."""
    spec = both[0].spec
    auto = spec.model_copy(update={"data": spec.data.model_copy(update={"pictures": "auto"})})
    before = {k: v for k, v in auto.data.model_dump().items() if k not in ("classes", "pictures")}
    study = Study.open(both[0].root)
    study.__dict__["spec"] = auto
    assert data.data_fingerprint(study) == store.fingerprint_of(
        "data", data.CODE, before, auto.task.model_dump(), None
    )


def test_what_cannot_be_referenced_says_so(tmp_path: Path) -> None:
    pixels, labels = np.zeros((8, 4, 4), np.uint8), np.arange(8) % 2
    np.savez(tmp_path / "a.npz", x_train=pixels, y_train=labels, x_test=pixels, y_test=labels)
    study = study_of(tmp_path / "study", tmp_path / "a.npz", "reference")
    spec = layout.spec_file(study.root)
    spec.write_text(spec.read_text().replace('id = "file"\n', ""))
    with pytest.raises(DataError, match=r'cannot be kept by reference.*Set pictures = "copy"'):
        read_data(Study.open(study.root))
    spec.write_text(
        'name = "x"\n[data]\nsource = "country-facts"\npictures = "reference"\n'
        '[task]\nname = "text-to-text"\n[algorithms.a]\narchitecture = "t5-small"\n'
    )
    with pytest.raises(DataError, match="does not fit the task 'text-to-text'"):
        read_data(Study.open(study.root))
