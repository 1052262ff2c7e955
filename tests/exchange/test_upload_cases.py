"""Models as people bring them: what is wrong with them is said before any figure, or they are
refused in one line; copies count once; no name can be mistaken for another."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save

from engine import Study, store
from engine.applications.modeldiff.job import run_job
from engine.build.stages import checkpoints
from engine.cli.main import main
from engine.exchange.importing.methods import import_scores
from engine.exchange.uploads.keeping import Given, accept, rename
from engine.exchange.uploads.report import QuickReport, Request, as_texts, quick_report
from engine.running.kept_worker import KeptWorker
from engine.store import layout
from engine.store.errors import ImportingError, SpecError, UploadError
from engine.store.spec import parse_spec
from engine.study.uploads import read_uploads
from engine.training.copies import tensors_digest
from tests.builders.copies import copy_of

pytestmark = pytest.mark.usefixtures("no_upload_stays")

Weights = dict[str, np.ndarray]
HIDDEN, HEAD = "trunk.1", "head"


@pytest.fixture(scope="module")
def study(small_study: Study, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A copy of the small study, whose uploads every test removes."""
    return copy_of(small_study, tmp_path_factory.mktemp("cases") / "study")


@pytest.fixture
def weights(study: Study) -> Weights:
    """Nearly the weights of the study's first model, to change; its own would be recognized."""
    found = store.read_tensors(layout.checkpoint_file(study.root, "mlp", 0))
    return {name: array * np.float32(1.001) for name, array in found.items()}


def content(weights: Weights, dtype: torch.dtype | None = None, **metadata: str) -> bytes:
    tensors = {name: torch.from_numpy(array.copy()) for name, array in weights.items()}
    return save(
        {name: t if dtype is None else t.to(dtype) for name, t in tensors.items()}, metadata
    )


def given(content: bytes, name: str = "mine.safetensors") -> Given:
    return Given(name, io.BytesIO(content))


def zipped(name: str, content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, content)
    return file.getvalue()


def torch_saved(zip_format: bool = True) -> bytes:
    file = io.BytesIO()
    state = {"head.weight": torch.ones(2, 2)}
    torch.save(state, file, _use_new_zipfile_serialization=zip_format)
    return file.getvalue()


# --- names of files ------------------------------------------------------------------------------

CONVERT = r"`dataloupe convert FILE`"
OTHER_FILES = {
    "model.pt": (torch_saved, CONVERT),
    "old.pth": (lambda: torch_saved(zip_format=False), CONVERT),
    "epoch=3.ckpt": (torch_saved, CONVERT),
    "pytorch_model.bin": (torch_saved, CONVERT),
    "renamed.safetensors": (torch_saved, CONVERT),
    "model.zip": (lambda: zipped("model.safetensors", b"x"), "unpack it"),
    "model.safetensors.txt": (lambda: b"These are weights.\n", CONVERT),
    "model": (lambda: b"\x08\x07\x12\x07pytorch", CONVERT),
    "model.h5": (lambda: b"\x89HDF\r\n\x1a\n" + bytes(64), "only safetensors"),
    "model.npz": (lambda: zipped("a.npy", b"\x93NUMPY"), "zip archive"),
}


@pytest.mark.input_case
@pytest.mark.parametrize("name", OTHER_FILES)
def test_a_file_of_another_kind_gives_one_line(study: Study, name: str) -> None:
    make, says = OTHER_FILES[name]
    with pytest.raises(UploadError, match=says) as caught:
        accept(study, [given(make(), name)])
    assert str(caught.value).startswith(name)
    assert "\n" not in str(caught.value)
    assert not study.uploads


@pytest.mark.input_case
@pytest.mark.parametrize(
    "name", ["a.SAFETENSORS", "a", "a.pt", "a.safetensors.txt", "a.safetensors (1)"]
)
def test_the_content_decides_and_not_the_extension(
    study: Study, worker: KeptWorker, weights: Weights, name: str
) -> None:
    assert accept(study, [given(content(weights), name)], worker=worker).files[0].name == name


# --- outputs that are not finite, and other doubts -----------------------------------------------


BRIGHT = 0.45 * 255


def dark_then_bright(study: Study) -> tuple[int, np.ndarray]:
    """A pixel that is 0 in the first eight test pictures, and clearly bright or not in the others.

    Returns:
        Its number, and its values in all test pictures.
    """
    pictures = read_pictures(study)
    unclear = (pictures > BRIGHT * 2 / 3) & (pictures <= BRIGHT)
    fits = ~(pictures[:8] > 0).any(axis=0) & ~unclear.any(axis=0)
    (pixel, *_) = np.flatnonzero(fits & ((pictures > BRIGHT).sum(axis=0) >= 2))
    return int(pixel), pictures[:, pixel]


def two_pixels(study: Study, weights: Weights) -> np.ndarray:
    """Weights of ±3e38 that cancel where both pixels are dark."""
    pixel, values = dark_then_bright(study)
    always = int(np.flatnonzero((read_pictures(study) == 0).all(axis=0))[0])
    weights[f"{HIDDEN}.weight"][:, pixel] = 3e38
    weights[f"{HIDDEN}.weight"][:, always] = -3e38
    return values > BRIGHT


def read_pictures(study: Study) -> np.ndarray:
    pictures = store.read_tensors(layout.arrays_file(study.root, "test", 0))["input"]
    return np.array(pictures).reshape(len(pictures), -1)


def one_class(study: Study, weights: Weights) -> np.ndarray:
    """Only the logit of class 4 overflows, where one pixel is not dark."""
    pixel, values = dark_then_bright(study)
    weights[f"{HIDDEN}.weight"][0] = 0
    weights[f"{HIDDEN}.weight"][0, pixel] = 1e3
    weights[f"{HIDDEN}.bias"][0] = 1e3 * 0.286 / 0.353
    weights[f"{HEAD}.weight"][4, 0] = 3e38
    return values > 0


def only_margins(study: Study, weights: Weights) -> np.ndarray:
    """Logits of ±2e38 are finite, and their differences are not."""
    pixel, values = dark_then_bright(study)
    weights[f"{HIDDEN}.weight"][0] = 0
    weights[f"{HIDDEN}.weight"][0, pixel] = 1
    weights[f"{HIDDEN}.bias"][0] = 0.286 / 0.353
    largest = values.max() / 255 / 0.353
    weights[f"{HEAD}.weight"][:, 0] = np.where(np.arange(10) % 2, 3e38, -3e38) / largest
    return values > 0


OVERFLOWS = [two_pixels, one_class, only_margins]


def reported(study: Study, worker: KeptWorker, *contents: bytes) -> QuickReport:
    files = [given(one, f"{n}.safetensors") for n, one in enumerate(contents)]
    upload = accept(study, files, worker=worker)
    return worker.call(quick_report, Request(study.root, upload.id, "mlp"), 60)


@pytest.mark.input_case
@pytest.mark.parametrize("overflow", OVERFLOWS, ids=lambda one: one.__name__)
def test_outputs_that_are_not_finite_are_said_first_and_not_compared(
    study: Study,
    worker: KeptWorker,
    weights: Weights,
    overflow: Callable[[Study, Weights], np.ndarray],
) -> None:
    good = content(weights)
    bad = np.flatnonzero(overflow(study, weights))
    assert len(bad) >= 2
    found = reported(study, worker, good, content(weights))
    text = found.warnings[0]
    if overflow is not only_margins:  # where differences overflow depends on the label, too
        assert found.not_finite == len(bad)
        assert not set(found.rows) & set(bad)
        assert f"infinite outputs for {len(bad)} of 60 test examples" in text
        assert f"first test-{bad[0]}, test-{bad[1]}" in text
    assert text.startswith("1.safetensors gives NaN")
    assert 0 < found.not_finite <= len(bad)
    assert "cannot be compared" in found.refusal
    assert "NaN" not in json.dumps({**found.to_dict(), "warnings": [], "refusal": ""})
    assert not set(found.rows) & set(
        bad[: found.not_finite] if overflow is not only_margins else ()
    )
    (upload,) = study.uploads
    with pytest.raises(UploadError, match=r"cannot be compared: 1\.safetensors gives NaN"):
        run_job(study, {"a": "mlp", "b": upload, "workers": 0}, lambda *step: None)
    assert not layout.algorithm_folder(study.root, upload).exists()
    assert not layout.comparison_files(study.root)


@pytest.mark.input_case
def test_the_command_line_says_so_before_the_accuracy(
    study: Study, weights: Weights, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    two_pixels(study, weights)
    path = tmp_path / "mine.safetensors"
    path.write_bytes(content(weights))
    assert main(["compare", str(study.root), "--with", str(path)]) == 2
    output = capsys.readouterr()
    assert (
        0 < output.out.index("Warning: mine.safetensors gives NaN") < output.out.index("accuracy")
    )
    assert "It cannot be compared" in output.err.splitlines()[-1]


def constant(weights: Weights) -> None:
    weights[f"{HIDDEN}.bias"][:] = -1e6


def equal_logits(weights: Weights) -> None:
    weights[f"{HEAD}.weight"][:] = 0
    weights[f"{HEAD}.bias"][:] = 0.5


def one_prediction(weights: Weights) -> None:
    weights[f"{HEAD}.bias"][4] += 1e4


def permuted(weights: Weights) -> None:
    for name in ("weight", "bias"):
        weights[f"{HEAD}.{name}"] = np.roll(weights[f"{HEAD}.{name}"], 3, axis=0)


DOUBTS = {
    constant: "same outputs for all 60 test examples",
    equal_logits: "same logit for 60 of 60 test examples",
    one_prediction: "predicts Coat for all 60 test examples",
    permuted: r"another order than this study's.* its accuracy would be [5-9]\d\.\d%",
}


@pytest.mark.input_case
@pytest.mark.parametrize("change", DOUBTS, ids=lambda one: one.__name__)
def test_doubtful_predictions_are_named(
    study: Study, worker: KeptWorker, weights: Weights, change: Callable[[Weights], None]
) -> None:
    change(weights)
    found = reported(study, worker, content(weights))
    assert len([text for text in found.warnings if re.search(DOUBTS[change], text)]) == 1
    assert not found.refusal


def test_a_good_model_raises_no_doubts(study: Study, worker: KeptWorker, weights: Weights) -> None:
    found = reported(study, worker, content(weights))
    assert (found.warnings, found.refusal, found.not_finite) == ([], "", 0)


# --- the numbers themselves ----------------------------------------------------------------------

NUMBERS: dict[str, tuple[torch.dtype, float, str]] = {
    "too large for float16": (torch.float16, 1e7, "NaN or infinite values"),
    "too large for float32": (torch.float64, 1e43, "NaN or infinite values"),
    "zero in float32": (torch.float64, 1e-60, "every weight is 0"),
    "subnormal in float16": (torch.float16, 1e-7, ""),
    "subnormal in float32": (torch.float32, 1e-42, ""),
    "bfloat16": (torch.bfloat16, 1.0, ""),
}


@pytest.mark.input_case
@pytest.mark.parametrize("case", NUMBERS)
def test_numbers_at_the_edge(study: Study, worker: KeptWorker, weights: Weights, case: str) -> None:
    dtype, factor, says = NUMBERS[case]
    scaled = {name: array.astype(np.float64) * factor for name, array in weights.items()}
    file = content(scaled, dtype)
    if says:
        with pytest.raises(UploadError, match=says):
            accept(study, [given(file)], worker=worker)
    else:
        assert accept(study, [given(file)], worker=worker).files


# --- copies --------------------------------------------------------------------------------------


def minus_zero(weights: Weights) -> bytes:
    return content({name: np.where(array == 0, -0.0, array) for name, array in weights.items()})


COPIES: dict[str, Callable[[Weights], bytes]] = {
    "the same file": lambda weights: content(weights),
    "other metadata": lambda weights: content(weights, epoch="3"),
    "other order": lambda weights: content(dict(reversed(weights.items()))),
    "stored as float64": lambda weights: content(weights, torch.float64),
    "stored as float16": lambda weights: content(weights, torch.float16),
    "minus zero": minus_zero,
}


@pytest.mark.input_case
@pytest.mark.parametrize("case", COPIES)
def test_copies_count_once(study: Study, worker: KeptWorker, weights: Weights, case: str) -> None:
    """Five copies would pass for five trainings that agree exactly."""
    weights = {name: array.astype(np.float16).astype("f4") for name, array in weights.items()}
    weights[f"{HEAD}.bias"][0] = 0
    other = {**weights, f"{HEAD}.bias": weights[f"{HEAD}.bias"] + 1}
    files = [content(weights), COPIES[case](weights), content(other)]
    names = ["a", "b", "c"]
    upload = accept(study, [given(f, n) for f, n in zip(files, names, strict=True)], worker=worker)
    assert [file.name for file in upload.files] == ["a", "c"]
    assert study.checkpoints(upload.id) == 2
    assert upload.copies == ("b holds the same weights as a, so the two count as one checkpoint.",)
    assert read_uploads(study.root) == {upload.id: upload}
    report = worker.call(quick_report, Request(study.root, upload.id, "mlp"), 60)
    assert report.warnings[0] == upload.copies[0]
    again = accept(study, [given(files[1], "b"), given(files[2], "c")], worker=worker)
    assert again.id == upload.id
    assert len(layout.uploaded_weights_files(study.root)) == 2


def test_prefixes_and_counters_do_not_make_another_model(weights: Weights, tmp_path: Path) -> None:
    def digest(weights: Weights) -> str:
        path = tmp_path / "file"
        path.write_bytes(content(weights))
        return tensors_digest(path)

    plain = {**weights, "bn.num_batches_tracked": np.array(3)}
    prefixed = {f"module.{name}": array for name, array in weights.items()}
    changed = {**weights, f"{HEAD}.bias": weights[f"{HEAD}.bias"] + 1e-3}
    renamed = {name.replace("head", "tail"): array for name, array in weights.items()}
    reshaped = {name: array[None] for name, array in weights.items()}
    assert digest(plain) == digest(prefixed) == digest(weights)
    assert len({digest(one) for one in (weights, changed, renamed, reshaped)}) == 4


@pytest.mark.input_case
def test_own_checkpoints_that_are_copies_are_refused(
    study: Study, weights: Weights, tmp_path: Path
) -> None:
    names = [str(tmp_path / f"{number}.safetensors") for number in range(2)]
    for number, name in enumerate(names):
        Path(name).write_bytes(content(weights, epoch=str(number)))
    own = study.spec.algorithms["mlp"].model_copy(update={"weights": names})
    spec = study.spec.model_copy(update={"algorithms": {"mlp": own}})
    with pytest.raises(SpecError, match=r"1\.safetensors holds the same weights as .*0\.safe"):
        checkpoints.check_distinct(Study(study.root, spec), "mlp")


# --- names ---------------------------------------------------------------------------------------

ALGORITHMS = {
    "an id of an upload": (["upload-0123456789ab"], "those of uploaded models"),
    "in capitals": (["UPLOAD-0123456789AB"], "those of uploaded models"),
    "any upload": (["upload-of-ann"], "those of uploaded models"),
    "another case": (["Plain", "plain"], "differ only in upper and lower case"),
}


@pytest.mark.input_case
@pytest.mark.parametrize("case", ALGORITHMS)
def test_names_of_algorithms_that_clash_are_refused(case: str) -> None:
    names, says = ALGORITHMS[case]
    content = {
        "name": "x",
        "data": {"source": "fashion-mnist"},
        "algorithms": {name: {} for name in names},
    }
    with pytest.raises(SpecError, match=says):
        parse_spec(content, "study.toml")


@pytest.mark.input_case
@pytest.mark.parametrize("name", ["mlp", "MLP", "upload-0123456789ab", " Upload-0123456789AB "])
def test_an_upload_cannot_be_named_like_an_algorithm(
    study: Study, worker: KeptWorker, weights: Weights, name: str
) -> None:
    with pytest.raises(UploadError, match="cannot be named"):
        accept(study, [given(content(weights))], name=name)
    upload = accept(study, [given(content(weights), name)], worker=worker)
    assert upload.name == f"{name.strip()} (uploaded)"
    with pytest.raises(UploadError, match="cannot be named"):
        rename(study, upload.id, name)


@pytest.mark.input_case
@pytest.mark.parametrize("name", ["trak", "TRAK", "Hybrid", "DataModel", "Mine"])
def test_imported_scores_cannot_be_named_like_a_method(
    study: Study, tmp_path: Path, name: str
) -> None:
    file = tmp_path / "scores.npy"
    np.save(file, np.random.default_rng(0).normal(size=(60, 300)).astype("f4"))
    other = layout.method_folder(study.root, "mlp", "mine")
    other.mkdir(parents=True, exist_ok=True)
    says = "one of Dataloupe's own" if name != "Mine" else "already has a method 'mine'"
    with pytest.raises(ImportingError, match=says):
        import_scores(study, "npy", file, name=name)
    other.rmdir()


def test_predictions_are_written_as_people_read_them() -> None:
    numbers = np.array([0.129834, 1234567.0])
    assert as_texts(numbers, "prediction").tolist() == ["0.129834", "1.23457e+06"]
    assert as_texts(numbers, "denoising-error").tolist()[0] == "0.130"
    assert as_texts(np.array(["Coat"], object), "prediction").tolist() == ["Coat"]
