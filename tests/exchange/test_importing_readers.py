"""The readers of other tools' files: what they read, and what they refuse."""

from __future__ import annotations

import json
import pickle
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from engine.exchange.importing import dattri, kronfluence, modeldiff, npy, traker
from engine.exchange.importing.source import Rows, Source, oriented
from engine.store.errors import ImportingError
from tests.builders.files_of_other_tools import saved, write_kronfluence, write_traker

N_TEST, N_TRAIN = 12, 30
SCORES = np.random.default_rng(0).standard_normal((N_TEST, N_TRAIN)).astype(np.float32)


def whole(source: Source, rows: Rows | None = None, memory_bytes: int = 700) -> np.ndarray:
    """Read the matrix `[n_test, n_train]` in small blocks, and check that each score comes once."""
    found = np.zeros((N_TEST, N_TRAIN), np.float32)
    times = np.zeros((N_TEST, N_TRAIN), int)
    for tests, trains, block in oriented(source, N_TEST, N_TRAIN, rows).read(memory_bytes):
        assert block.dtype == np.float32
        found[tests, trains] = block
        times[tests, trains] += 1
    assert (times == 1).all()
    return found


def refused(path: Path, words: str, read: Callable[..., Source] = npy.read, **more: Any) -> None:
    """Check that a file is refused in one line that names it."""
    with pytest.raises(ImportingError, match=words) as caught:
        whole(read(path, **more))
    assert str(path) in str(caught.value) or str(path.name) in str(caught.value)
    assert "\n" not in str(caught.value)


# --- file formats ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f2", "<f8", "<i4"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("rows", ["test", "train"])
def test_reads_npy_of_any_dtype_and_order(
    tmp_path: Path, dtype: str, order: Any, rows: Rows
) -> None:
    scores = np.round(10 * SCORES).astype(dtype)
    laid = np.asarray(scores if rows == "test" else scores.T, order=order)
    path = saved(tmp_path / "scores.npy", laid)
    found = oriented(npy.read(path), N_TEST, N_TRAIN)
    assert found.rows == rows
    assert ("transposed" in found.note) == (rows == "train")
    np.testing.assert_array_equal(whole(npy.read(path)), scores.astype(np.float32))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_reads_npz(tmp_path: Path, save: Callable[..., None]) -> None:
    path = tmp_path / "scores.npz"
    save(path, scores=SCORES, ids=np.arange(4))
    np.testing.assert_array_equal(whole(npy.read(path)), SCORES)
    save(path, tau=SCORES, other=-SCORES)
    refused(path, r"tau \[12, 30\], other \[12, 30\]; choose the scores with --array")
    np.testing.assert_array_equal(whole(npy.read(path, "other")), -SCORES)
    refused(path, "no array 'neither'; it holds tau", array="neither")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_reads_safetensors_of_any_dtype(tmp_path: Path, dtype: torch.dtype) -> None:
    path = tmp_path / "scores.safetensors"
    tensor = torch.from_numpy(SCORES).to(dtype)
    save_file({"tau": tensor, "bias": torch.zeros(N_TEST)}, path)
    np.testing.assert_array_equal(whole(npy.read(path)), tensor.float().numpy())


def test_memory_use_does_not_grow_with_the_matrix(tmp_path: Path) -> None:
    path = saved(tmp_path / "scores.npy", np.ones((4000, 1000), np.float64))
    blocks = oriented(npy.read(path), 1000, 4000)
    tracemalloc.start()
    assert sum(block.size for _, _, block in blocks.read(2**18)) == 4_000_000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20  # the file has 32 MB


# --- identifying the axes ----------------------------------------------------------------------


def test_a_square_matrix_requires_the_rows_option(tmp_path: Path) -> None:
    square = SCORES[:, :N_TEST]
    source = npy.read(saved(tmp_path / "scores.npy", square))
    with pytest.raises(ImportingError, match=r"square .*--rows test .*--rows train"):
        oriented(source, N_TEST, N_TEST)
    for rows, wanted in (("test", square), ("train", square.T)):
        ((_, _, block),) = oriented(source, N_TEST, N_TEST, rows)  # type: ignore[arg-type]
        np.testing.assert_array_equal(block, wanted)


def test_a_square_matrix_of_a_tool_is_read_as_the_tool_writes_it(tmp_path: Path) -> None:
    square = SCORES[:, :N_TEST]
    found = oriented(traker.read(write_traker(tmp_path / "t", square)), N_TEST, N_TEST)
    assert found.rows == "train"
    assert "as traker writes them" in found.note
    ((_, _, block),) = found
    np.testing.assert_array_equal(block, square)


def test_the_error_for_a_wrong_shape_describes_both_axes(tmp_path: Path) -> None:
    path = saved(tmp_path / "scores.npy", SCORES[:, :20])
    refused(
        path,
        r"12 rows \(as many as test examples\) and 20 columns \(which matches neither\); "
        "the study has 12 test and 30 training examples",
    )
    refused(saved(path, SCORES[None]), r"3 axes \[1, 12, 30\]; scores have two")
    refused(saved(path, np.float32(3)), r"0 axes")
    refused(saved(path, np.zeros((0, N_TRAIN), np.float32)), r"0 rows \(which matches neither")


def test_axes_that_contradict_the_tools_format_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "scores.npy", SCORES)
    words = (
        r"12 rows \(as many as test examples\) and 30 columns \(as many as training examples\), "
        "but dattri writes train examples as rows. .* --rows test"
    )
    refused(path, words, dattri.read)
    np.testing.assert_array_equal(whole(dattri.read(path), "test"), SCORES)
    with pytest.raises(ImportingError, match="but --rows specifies train examples"):
        whole(npy.read(path), "train")


# --- unusable files ----------------------------------------------------------------------------


class Malicious:
    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("a pickle was run",))


def test_pickles_are_never_read(tmp_path: Path) -> None:
    path = tmp_path / "scores.npy"
    path.write_bytes(pickle.dumps(Malicious()))
    refused(path, "is not a NumPy array but a pickle, which could run code")
    refused(saved(path, np.array([[Malicious()]], dtype=object)), "Python objects, which could run")
    np.savez(tmp_path / "scores.npz", a=np.array([[Malicious()]], dtype=object))
    refused(tmp_path / "scores.npz", "Python objects, which could run")
    refused(tmp_path / "scores.pt", "Run `dataloupe convert .*scores.pt` and import the resulting")
    torch.save(torch.zeros(2, 2), path)
    refused(path, "but an archive: .* `dataloupe convert`")
    path.rename(tmp_path / "scores.safetensors")
    refused(tmp_path / "scores.safetensors", "not a complete safetensors file but an archive")
    (tmp_path / "scores.safetensors").write_bytes(pickle.dumps(Malicious()))
    refused(tmp_path / "scores.safetensors", "not a complete safetensors file but a pickle")


@pytest.mark.parametrize(
    "array", [np.array([["a"]]), np.zeros((2, 2), complex), np.zeros((2, 2), "?")]
)
def test_arrays_of_anything_but_real_numbers_are_refused(tmp_path: Path, array: np.ndarray) -> None:
    refused(saved(tmp_path / "scores.npy", array), "scores must be real numbers")


def test_truncated_files_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "scores.npy", SCORES)
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    refused(path, "1,567 bytes, but its header requires 1,568: it is truncated")
    path.write_bytes(content + b"x")
    refused(path, "something was appended")
    for length in (0, 5, 9, 40):
        path.write_bytes(content[:length])
        refused(path, "is not a NumPy array|damaged header")
    path.write_bytes(b"\x93NUMPY\x03\x00" + content[8:])
    refused(path, r"not a plain array of numbers \(format 3\)")
    tensors = tmp_path / "scores.safetensors"
    save_file({"tau": torch.from_numpy(SCORES)}, tensors)
    content = tensors.read_bytes()
    for length in (0, 7, 30, len(content) - 1):
        tensors.write_bytes(content[:length])
        refused(tensors, "not a complete safetensors file")
    archive = tmp_path / "scores.npz"
    np.savez_compressed(archive, tau=SCORES)
    archive.write_bytes(archive.read_bytes()[:-100])
    refused(archive, "not a complete .npz file")


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "scores.npz"
    np.savez(path, tau=SCORES)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    refused(path, r"(is damaged|is not a complete .npz file): Bad CRC-32")
    whole_member = saved(tmp_path / "tau.npy", SCORES).read_bytes()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tau.npy", whole_member[:-1])
    refused(path, r"scores.npz is truncated")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello, this is not an array")
    refused(path, "not a NumPy array")


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [12, 31], "data_offsets": [0, 1440]},
        {"dtype": "F32", "shape": [-12, -30], "data_offsets": [0, 1440]},
        {"dtype": "F32", "shape": [12.0, 30], "data_offsets": [0, 1440]},
        {"dtype": "F32", "shape": [12, 30], "data_offsets": [0, 1440, 9]},
        {"dtype": ["F32"], "shape": [12, 30], "data_offsets": [0, 1440]},
        {"dtype": "F8_E4M3", "shape": [12, 120], "data_offsets": [0, 1440]},
        {"shape": [12, 30], "data_offsets": [0, 1440]},
    ],
)
def test_an_invalid_safetensors_header_is_refused(tmp_path: Path, entry: dict[str, Any]) -> None:
    path = tmp_path / "scores.safetensors"
    header = json.dumps({"tau": entry}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(1440))
    refused(path, "damaged|not match its size|is F8_E4M3; scores must be|not a complete")


def test_missing_files_are_refused(tmp_path: Path) -> None:
    for name in ("scores.npy", "scores.npz", "scores.safetensors"):
        refused(tmp_path / name, "cannot be read: No such file")
    refused(tmp_path, "is a folder; give the path of a file")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
@pytest.mark.parametrize("rows", ["test", "train"])
def test_the_error_names_a_score_that_is_not_finite(
    tmp_path: Path, value: float, rows: Rows
) -> None:
    scores = SCORES.astype(np.float64)
    scores[7, 23] = value
    path = saved(tmp_path / "scores.npy", scores if rows == "test" else scores.T.copy())
    refused(path, r"training row 23 for test row 7 is (nan|-?inf); all scores must be finite")


# --- traker ------------------------------------------------------------------------------------


def test_reads_a_save_dir_of_traker(tmp_path: Path) -> None:
    folder = write_traker(tmp_path / "save_dir", SCORES)
    source = traker.read(folder)
    np.testing.assert_array_equal(whole(source), SCORES)
    np.testing.assert_array_equal(whole(traker.read(folder / "scores" / "test.mmap")), SCORES)
    assert source.settings == {"JL dimension": 16, "JL matrix type": "normal"}


def test_reads_traker_scores_in_half_precision(tmp_path: Path) -> None:
    half = SCORES.astype(np.float16)
    found = whole(traker.read(write_traker(tmp_path / "save_dir", half)))
    np.testing.assert_array_equal(found, half.astype(np.float32))


def test_chooses_one_of_several_traker_experiments(tmp_path: Path) -> None:
    folder = write_traker(tmp_path / "save_dir", SCORES)
    saved(folder / "scores" / "other.mmap", -SCORES.T)
    refused(folder, r"several experiments \(other, test\); choose one with --array", traker.read)
    np.testing.assert_array_equal(whole(traker.read(folder, "other")), -SCORES)
    refused(folder, "no experiment 'third'; it has other, test", traker.read, array="third")


def test_unfinalized_or_inconsistent_traker_scores_are_refused(tmp_path: Path) -> None:
    folder = write_traker(tmp_path / "unfinished", SCORES, final=0)
    with pytest.raises(ImportingError, match=r"not finalized\. .*finalize_scores"):
        traker.read(folder)
    folder = write_traker(tmp_path / "mixed", SCORES)
    saved(folder / "scores" / "test.mmap", SCORES)
    with pytest.raises(ImportingError, match=r"12 rows, but according to .* training set has 30"):
        traker.read(folder)
    (folder / "metadata.json").write_text("[")
    with pytest.raises(ImportingError, match=r"metadata.json cannot be read as JSON"):
        traker.read(folder)
    (folder / "metadata.json").write_text("[]")
    with pytest.raises(ImportingError, match=r"metadata.json does not hold a JSON object"):
        traker.read(folder)
    with pytest.raises(ImportingError, match=r"has no scores/\*.mmap"):
        traker.read(tmp_path)


# --- kronfluence -------------------------------------------------------------------------------


def test_reads_pairwise_scores_of_kronfluence(tmp_path: Path) -> None:
    folder = write_kronfluence(tmp_path / "demo" / "scores_a", all_modules=SCORES)
    for path in (folder, folder.parent, folder / kronfluence.FILE):
        source = kronfluence.read(path)
        np.testing.assert_array_equal(whole(source), SCORES)
        assert source.settings == {"strategy": "ekfac", "damping_factor": "1e-08"}
    write_kronfluence(tmp_path / "demo" / "scores_b", all_modules=SCORES)
    refused(folder.parent, r"several sets of scores \(scores_a, scores_b\)", kronfluence.read)


def test_adds_up_kronfluence_modules(tmp_path: Path) -> None:
    parts = {"conv": SCORES, "linear": 2 * SCORES, "head": np.ones_like(SCORES)}
    folder = write_kronfluence(tmp_path / "scores_a", **parts)
    np.testing.assert_allclose(whole(kronfluence.read(folder)), 3 * SCORES + 1, rtol=1e-5)
    np.testing.assert_array_equal(whole(kronfluence.read(folder, "linear")), 2 * SCORES)
    with pytest.raises(ImportingError, match="no array 'tail'; it holds"):
        kronfluence.read(folder, "tail")
    folder = write_kronfluence(tmp_path / "scores_b", conv=SCORES, other=SCORES[:3])
    with pytest.raises(ImportingError, match="cannot be modules of one model"):
        kronfluence.read(folder)


def test_a_kronfluence_folder_without_scores_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImportingError, match=r"has no pairwise_scores.safetensors"):
        kronfluence.read(tmp_path)
    (tmp_path / "pairwise_scores_data_partition0_module_partition0.safetensors").touch()
    with pytest.raises(ImportingError, match="are not aggregated"):
        kronfluence.read(tmp_path)


# --- dattri and ModelDiff ----------------------------------------------------------------------


def test_reads_dattri_scores(tmp_path: Path) -> None:
    path = saved(tmp_path / "score.npy", SCORES.T.copy())
    np.testing.assert_array_equal(whole(dattri.read(path)), SCORES)


def test_reads_modeldiff_scores_in_both_orientations(tmp_path: Path) -> None:
    path = saved(tmp_path / "scores.npy", SCORES)
    np.testing.assert_array_equal(whole(modeldiff.read(path)), SCORES)
    published = tmp_path / "published.safetensors"
    weight = torch.from_numpy(SCORES.T.copy())
    save_file(
        {"weight": weight, "bias": torch.zeros(N_TEST), "lam": torch.zeros(N_TEST)}, published
    )
    np.testing.assert_array_equal(whole(modeldiff.read(published)), SCORES)
