"""Imported run banks: their numbers arrive unchanged, and mismatches are refused in one line."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine import Study, store
from engine.build.build import build, writing
from engine.build.run import Run
from engine.build.stages import bank
from engine.cli.main import main
from engine.exchange.importing import banks
from engine.store import layout
from engine.store.errors import ImportingError, SpecError, StoreError
from engine.study.doctor import examine
from engine.study.examples import read_arrays
from engine.study.run_banks import has_bank, read_repeated_runs
from tests.build.test_build import change, contents

M, N_TRAIN, N_TEST = 24, 300, 60


@pytest.fixture(scope="module")
def study_with_runs(small_study: Study, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The small study with 24 runs and their logits, from which the tests make the files."""
    root = tmp_path_factory.mktemp("banks") / "study"
    shutil.copytree(small_study.root, root, ignore=shutil.ignore_patterns("bank"))
    study = change(root, "masks = 15", "masks = 24\ntest_seeds = 1\nlogits = true")
    with writing(study):
        bank.run(Run(study, "cpu", 0, lambda step: None), "mlp")
    return study


@pytest.fixture
def files(study_with_runs: Study) -> dict[str, np.ndarray]:
    """The arrays of the published layout, by file name."""
    runs = study_with_runs.bank()
    shards = [
        store.read_tensors(layout.run_file(study_with_runs.root, "mlp", k, 0)) for k in range(M)
    ]
    files = {"train_masks_50pct": runs.masks}
    for split in ("train", "test"):
        logits = np.stack([shard[f"{split}_logits"] for shard in shards])
        files[f"{split}_margins_50pct"] = max_margins(study_with_runs, split, logits)
    return files


def max_margins(study: Study, split: Any, logits: np.ndarray) -> np.ndarray:
    """logit_y − the largest other logit, float16, by a plain loop."""
    labels = np.concatenate([shard["label"] for shard in read_arrays(study, split)])
    found = np.empty(logits.shape[:2], np.float16)
    for run, of_run in enumerate(logits):
        for row, of_row in enumerate(of_run):
            found[run, row] = of_row[labels[row]] - np.delete(of_row, labels[row]).max()
    return found


@pytest.fixture
def copy(small_study: Study, tmp_path: Path) -> Study:
    """A copy of the built study without a bank."""
    root = tmp_path / "copy"
    shutil.copytree(small_study.root, root, ignore=shutil.ignore_patterns("bank"))
    return change(root, "masks = 15", "masks = 0")


def saved(folder: Path, files: dict[str, np.ndarray]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, array in files.items():
        np.save(folder / f"{name}.npy", array, allow_pickle=True)
    return folder


# --- what is imported ----------------------------------------------------------------------------


def test_the_published_layout_is_imported_unchanged(
    copy: Study, files: dict[str, np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = saved(tmp_path / "cifar", files)
    assert main(["import", "bank", str(folder), "--study", str(copy.root)]) == 0
    printed = capsys.readouterr().out
    assert "max-margins" in printed
    assert "24 runs on 24 masks (α 0.5)" in printed
    found = copy.bank()
    np.testing.assert_array_equal(found.masks, files["train_masks_50pct"])
    np.testing.assert_array_equal(found.test, files["test_margins_50pct"].astype(np.float32))
    np.testing.assert_array_equal(found.train, files["train_margins_50pct"].astype(np.float32))
    assert (found.output, found.source) == ("max-margin", "cifar")
    assert len(found.part("test")) == 4
    assert copy.bank(train=False).train is None


def test_margins_are_computed_from_logits(
    copy: Study, study_with_runs: Study, files: dict[str, np.ndarray], tmp_path: Path
) -> None:
    shards = [
        store.read_tensors(layout.run_file(study_with_runs.root, "mlp", k, 0)) for k in range(M)
    ]
    logits = {
        f"{s}_logits": np.stack([one[f"{s}_logits"] for one in shards]) for s in ("train", "test")
    }
    masks = {"train_masks": files["train_masks_50pct"]}
    about = copy.import_bank(saved(tmp_path / "logits", masks | logits))
    ours, found = study_with_runs.bank(), copy.bank()
    assert about.output == found.output == "margin"
    np.testing.assert_allclose(found.test, ours.test, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found.train, ours.train, rtol=1e-4, atol=1e-4)


def test_unfinished_runs_of_the_datamodels_library_are_left_out(
    copy: Study, files: dict[str, np.ndarray], tmp_path: Path
) -> None:
    masks, margins = files["train_masks_50pct"].copy(), files["test_margins_50pct"].copy()
    masks[20:], margins[20:] = False, 0
    completed = np.arange(M) < 20
    folder = saved(
        tmp_path / "store", {"masks": masks, "margins": margins, "_completed": completed}
    )
    about = copy.import_bank(folder, output="margin")
    assert (about.runs, about.output, about.train) == (20, "margin", False)
    assert "4 of 24 runs as unfinished" in " ".join(about.notes)
    assert copy.bank().train is None
    np.testing.assert_array_equal(copy.bank().masks, masks[:20])


def test_runs_with_the_same_mask_are_averaged(
    copy: Study, files: dict[str, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(banks, "_SHARD_BYTES", 4 * 360 * 7)  # seven runs per shard
    order = [0, 1, 2, 0, *range(3, 18), 0]
    margins = files["test_margins_50pct"][: len(order)]
    files = {"masks": files["train_masks_50pct"][order], "margins": margins}
    about = copy.import_bank(saved(tmp_path / "seeds", files))
    assert (about.runs, about.masks, about.shards) == (20, 18, 3)
    found = copy.bank()
    assert found.seeds.tolist() == [3] + 17 * [1]
    assert len(np.unique(found.masks, axis=0)) == 18
    wanted = margins[[0, 3, 19]].astype(np.float64).mean(axis=0)
    np.testing.assert_allclose(found.test[0], wanted, rtol=1e-5)


def test_runs_of_one_test_mask_are_compared(
    copy: Study, files: dict[str, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(banks, "_SHARD_BYTES", 4 * 360 * 7)  # seven runs per shard
    order = [*range(18), 4, 4]  # mask 4 is in the test part
    margins = files["test_margins_50pct"][: len(order)]
    files = {"masks": files["train_masks_50pct"][order], "margins": margins}
    copy.import_bank(saved(tmp_path / "seeds", files))
    found = read_repeated_runs(copy)
    assert found.runs.tolist() == [3, 1, 1]
    wanted = 3 * margins[[4, 18, 19]].astype(np.float64).var(axis=0)
    np.testing.assert_allclose(found.squares[0], wanted, rtol=1e-4)
    assert not found.squares[1:].any()


def test_transposed_matrices_are_recognized_and_noted(
    copy: Study, files: dict[str, np.ndarray], tmp_path: Path
) -> None:
    turned = {name: array.T.copy() for name, array in files.items()}
    about = copy.import_bank(saved(tmp_path / "turned", turned))
    assert about.notes[0] == (
        "train_masks_50pct.npy is [300 training examples, 24 runs]; it is transposed."
    )
    np.testing.assert_array_equal(copy.bank().masks, files["train_masks_50pct"])
    np.testing.assert_array_equal(copy.bank().test, files["test_margins_50pct"].astype(np.float32))


# --- effects on the study ------------------------------------------------------------------------


def test_no_runs_are_trained_after_an_import(
    copy: Study, files: dict[str, np.ndarray], tmp_path: Path
) -> None:
    copy.import_bank(saved(tmp_path / "bank", files))
    copy.build(workers=0)  # [subset_runs] requests no runs, but the imported ones are used
    quality = copy.quality()
    assert quality is not None
    assert (quality.output, quality.alpha) == ("max-margin", 0.5)
    assert quality.masks == {"fit": 15, "validation": 5, "test": 4}
    study = change(copy.root, "masks = 0", "masks = 15")
    study.build(workers=0)
    assert not layout.bank_folder(study.root, "mlp").exists()
    assert has_bank(study, "mlp")
    step = next(step for step in study.progress() if step.stage == "bank")
    assert step.complete
    other = change(copy.root, "train_limit = 300", "train_limit = 299")
    with pytest.raises(StoreError, match="run bank of mlp was made for different data"):
        other.build(workers=0, rebuild="data")


def test_an_algorithm_without_a_recipe_can_have_an_imported_bank(
    small_study: Study, study_folder: Path, files: dict[str, np.ndarray], tmp_path: Path
) -> None:
    shutil.copy(layout.checkpoint_file(small_study.root, "mlp", 0), study_folder / "0.safetensors")
    recipe = "epochs = 4\nlearning_rate = 0.05\nbatch_size = 64\ncheckpoints = 2"
    study = change(study_folder, recipe, 'weights = ["0.safetensors"]')
    with pytest.raises(SpecError, match="dataloupe import bank"):
        study.build(workers=0)
    study.import_bank(saved(tmp_path / "bank", files))
    build(study, workers=0)
    assert has_bank(study, "mlp")


def test_a_bank_is_replaced_only_on_request_and_completely(
    copy: Study, files: dict[str, np.ndarray], tmp_path: Path
) -> None:
    folder = saved(tmp_path / "bank", files)
    first = copy.import_bank(folder)
    before = contents(copy.root)
    assert copy.import_bank(folder) == first
    with pytest.raises(ImportingError, match="--replace"):
        copy.import_bank(folder, runs=20)
    broken = files["test_margins_50pct"].copy()
    broken[17, 3] = np.nan
    saved(folder, {"test_margins_50pct": broken})
    with pytest.raises(ImportingError, match="in run 17, 1 of its 60"):
        copy.import_bank(folder, replace=True)
    assert contents(copy.root) == before
    saved(folder, files)
    assert copy.import_bank(folder, runs=20, replace=True).runs == 20
    assert len(list(layout.bank_import_file(copy.root, "mlp").parent.glob("*.safetensors"))) == 1
    assert len(copy.bank()) == 20


def test_doctor_suggests_importing_a_broken_bank_again(
    copy: Study, files: dict[str, np.ndarray], tmp_path: Path
) -> None:
    about = copy.import_bank(saved(tmp_path / "bank", files))
    path = layout.imported_runs_file(copy.root, "mlp", about.fingerprint, 0)
    path.write_bytes(path.read_bytes()[:-100])
    (finding,) = examine(copy, repair=True).broken
    assert "only importing it again repairs it" in finding
    assert not has_bank(copy, "mlp")


# --- what is refused -----------------------------------------------------------------------------


def without_example(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda files: files.update({name: files[name][:, 1:]})


def shuffled_runs(files: dict[str, Any]) -> None:
    files["train_margins_50pct"] = files["train_margins_50pct"][::-1]


def other_examples(files: dict[str, Any]) -> None:
    order = np.random.default_rng(0).permutation(N_TEST)
    files["test_margins_50pct"] = files["test_margins_50pct"][:, order]


def set_to(name: str, where: Any, value: Any) -> Callable[[dict[str, Any]], None]:
    def spoil(files: dict[str, Any]) -> None:
        files[name] = files[name].copy()
        files[name][where] = value

    return spoil


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (
            without_example("train_masks_50pct"),
            r"24 rows \(which matches nothing\) and 299 columns \(which matches nothing\); the "
            "study has 300 training examples",
        ),
        (
            without_example("test_margins_50pct"),
            r"24 rows \(as many as masks\) and 59 columns \(which matches nothing\); the study "
            "has 60 test examples and masks of 24 runs",
        ),
        (
            lambda files: files.update(test_margins_50pct=files["test_margins_50pct"][:20]),
            r"20 rows \(which matches nothing\) and 60 columns \(as many as test examples\)",
        ),
        (
            lambda files: files.update(test_margins_50pct=files["test_margins_50pct"][:, 0]),
            r"has shape \[24\]; expected \[runs, examples\]",
        ),
        (set_to("test_margins_50pct", (5, 7), np.inf), "in run 5, 1 of its 60 outputs is NaN or"),
        (set_to("train_margins_50pct", 3, 0), "in run 3, all its 300 outputs are the same"),
        (
            set_to("test_margins_50pct", (slice(None), 9), 1),
            "the same output for 1 of 60 test examples",
        ),
        (set_to("train_masks_50pct", 2, False), "run 2 was trained on no example"),
        (set_to("train_masks_50pct", 2, True), "run 2 was trained on every example"),
        (
            lambda files: files.update(
                train_masks_50pct=2 * files["train_masks_50pct"].astype(int)
            ),
            "values other than 0 and 1",
        ),
        (
            lambda files: files.update({name: files[name][:14] for name in files}),
            "14 finished runs on 14 different masks; at least 15",
        ),
        (lambda files: files.pop("train_masks_50pct"), r"has no train_masks\*.npy or masks\*.npy"),
        (lambda files: files.pop("test_margins_50pct"), r"has no test_margins\*.npy or"),
        (
            lambda files: files.update(train_masks_10pct=files["train_masks_50pct"]),
            "has several candidates: train_masks_10pct.npy, train_masks_50pct.npy",
        ),
        (
            lambda files: files.update(test_logits=np.zeros((M, N_TEST, 10))),
            "logits of one split and margins of the other",
        ),
        (
            lambda files: files.update(test_margins_50pct=np.full((M, N_TEST), object())),
            "not a complete .npy file of plain numbers",
        ),
        (shuffled_runs, "margins are not higher on the examples in a model's mask"),
        (other_examples, "Check the dataset and the order of the test examples"),
    ],
)
def test_a_bank_that_does_not_match_is_refused_in_one_line(
    copy: Study,
    files: dict[str, np.ndarray],
    tmp_path: Path,
    spoil: Callable[[dict[str, Any]], None],
    words: str,
) -> None:
    before = contents(copy.root)
    spoil(files)
    with pytest.raises(ImportingError, match=words) as caught:
        copy.import_bank(saved(tmp_path / "bank", files))
    assert "\n" not in str(caught.value)
    assert contents(copy.root) == before


def test_the_error_names_a_truncated_file(
    copy: Study, files: dict[str, np.ndarray], tmp_path: Path
) -> None:
    path = saved(tmp_path / "bank", files) / "test_margins_50pct.npy"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ImportingError, match=r"test_margins_50pct\.npy is not a complete \.npy"):
        copy.import_bank(path.parent)
    with pytest.raises(ImportingError, match="is not a folder"):
        copy.import_bank(path)


def test_the_error_for_dataloupes_own_runs_says_how_to_use_them(
    copy: Study, small_study: Study
) -> None:
    with pytest.raises(ImportingError, match="do not need an import: copy them"):
        copy.import_bank(layout.bank_folder(small_study.root, "mlp"))
