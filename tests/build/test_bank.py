"""The run bank: runs equal plain training, survive killed workers, and are reused as it grows."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from engine import (
    DataError,
    DataloupeError,
    Progress,
    SpecError,
    StaleError,
    StoreError,
    Study,
    store,
)
from engine.attribution.datamodels import run_bank
from engine.build.build import writing
from engine.build.run import Run
from engine.build.stages import bank as stage
from engine.models import build_model
from engine.store import layout
from engine.store.spec import Part
from engine.study.examples import read_stacked_arrays
from engine.study.run_banks import finished_runs, has_bank, read_repeated_runs, run_seed
from engine.tasks import load_task
from engine.training.outputs import evaluate
from engine.training.trainer import train
from tests.build.test_build import change, children_of, contents
from tests.conftest import SMALL_STUDY


@pytest.fixture
def copy(small_study: Study, tmp_path: Path) -> Study:
    """A copy of the built study that a test may change."""
    return Study.open(shutil.copytree(small_study.root, tmp_path / "copy"))


def study_with(tmp_path: Path, small_study: Study, text: str) -> Study:
    """The small study's data and checkpoints with another study.toml."""
    root = shutil.copytree(
        small_study.root, tmp_path / "other", ignore=shutil.ignore_patterns("bank")
    )
    (root / "study.toml").write_text(text)
    return Study.open(root)


def train_bank(
    study: Study, workers: int, report: Callable[[Progress], None] = lambda step: None
) -> None:
    """The stage of the bank alone."""
    with writing(study):
        stage.run(Run(study, "cpu", workers, report), "mlp")


# --- runs ---------------------------------------------------------------------------------------


def test_a_run_equals_training_on_its_mask(small_study: Study) -> None:
    found, spec = small_study.bank(), small_study.spec.algorithms["mlp"]
    task, encoding = load_task("image-classification"), small_study.dataset.encoding
    arrays = {split: read_stacked_arrays(small_study, split) for split in ("train", "test")}
    seed = run_seed(small_study, 3, 0)
    model = build_model("mlp", spec.architecture_options, encoding, 10, seed)
    subset = np.flatnonzero(found.masks[3])
    model = train(task, model, arrays["train"], encoding, spec, seed, "cpu", subset)
    for split, outputs in (("train", found.train), ("test", found.test)):
        expected = evaluate(task, model, arrays[split], encoding, 512, "cpu")["output"]
        np.testing.assert_array_equal(outputs[3], expected)


def test_a_bank_has_one_row_per_mask(small_study: Study) -> None:
    found = small_study.bank()
    assert (found.masks.shape, found.masks.dtype) == ((15, 300), np.dtype(bool))
    assert (found.train.shape, found.test.shape) == ((15, 300), (15, 60))
    assert found.train.dtype == found.test.dtype == np.float32
    np.testing.assert_array_equal(found.masks.sum(1), 150)
    np.testing.assert_array_equal(found.seeds, [1, 1, 1, 1, 2] * 3)
    assert len(found) == len(np.unique(found.masks, axis=0)) == 15
    assert small_study.bank(train=False).train is None


def test_margins_are_higher_on_training_examples_in_the_mask(small_study: Study) -> None:
    found = small_study.bank()
    assert found.train[found.masks].mean() > found.train[~found.masks].mean() + 0.1


def test_masks_depend_on_seed_and_number_only_and_nest_in_alpha() -> None:
    half = run_bank.draw_mask(3, 17, 1000, 0.5)
    np.testing.assert_array_equal(half, run_bank.draw_mask(3, 17, 1000, 0.5))
    assert half.sum() == 500
    assert 150 < (half & run_bank.draw_mask(3, 18, 1000, 0.5)).sum() < 350
    assert 150 < (half & run_bank.draw_mask(4, 17, 1000, 0.5)).sum() < 350
    assert not (run_bank.draw_mask(3, 17, 1000, 0.2) & ~half).any()
    # Existing studies hold masks drawn this way, so these bits must never change.
    assert np.flatnonzero(run_bank.draw_mask(0, 0, 16, 0.25)).tolist() == [2, 3, 11, 13]


@pytest.mark.parametrize("n", [1, 8, 13])
def test_packed_masks_are_unpacked_unchanged(n: int) -> None:
    masks = np.random.default_rng(0).random((4, n)) < 0.5
    assert run_bank.pack(masks).shape == (4, -(-n // 8))
    np.testing.assert_array_equal(run_bank.unpack(run_bank.pack(masks), n), masks)


def test_masks_keep_their_part_when_the_bank_grows() -> None:
    def numbers(m: int, part: Part) -> list[int]:
        rows = np.arange(m, dtype=np.float32)[:, None]
        whole = run_bank.RunBank(rows > 0, rows, rows, np.ones(m), np.arange(m))
        return whole.part(part).numbers.tolist()

    assert numbers(10, "fit") == [0, 1, 2, 5, 6, 7]
    assert numbers(10, "validation") == [3, 8]
    assert numbers(10, "test") == [4, 9]
    assert numbers(12, "test") == [4, 9]


def test_logits_and_weights_are_stored_on_request(small_study: Study, tmp_path: Path) -> None:
    text = SMALL_STUDY + "logits = true\nweights = true\n"
    study = study_with(tmp_path, small_study, text)
    study.build(workers=0)
    shard = store.read_tensors(layout.run_file(study.root, "mlp", 2, 0))
    np.testing.assert_array_equal(shard["test"], small_study.bank().test[2])
    weights = {
        name.removeprefix("weights."): torch.from_numpy(np.array(array))
        for name, array in shard.items()
        if name.startswith("weights.")
    }
    encoding = study.dataset.encoding
    model = build_model("mlp", {"widths": [32]}, encoding, 10, seed=1)
    model.load_state_dict(weights, strict=True)
    task = load_task("image-classification")
    for split in ("train", "test"):
        found = evaluate(task, model, read_stacked_arrays(study, split), encoding, 512, "cpu")
        np.testing.assert_array_equal(shard[f"{split}_logits"], found["logits"])
        np.testing.assert_array_equal(shard[split], found["output"])


# --- growing and changing -------------------------------------------------------------------------


def test_a_growing_bank_trains_only_missing_runs(copy: Study) -> None:
    old = {path: path.stat().st_mtime_ns for path in layout.bank_folder(copy.root, "mlp").iterdir()}
    before = copy.bank()
    study = change(copy.root, "masks = 15", "masks = 17\nseeds = 2")
    with pytest.raises(StoreError, match=r"has 18 of 34 runs so far"):
        study.bank()
    assert not has_bank(study, "mlp")
    study.build(workers=0)
    assert has_bank(study, "mlp")
    assert {path: path.stat().st_mtime_ns for path in old} == old
    assert len(list(layout.bank_folder(study.root, "mlp").iterdir())) == 34
    after = study.bank()
    np.testing.assert_array_equal(after.seeds, 2)
    np.testing.assert_array_equal(after.masks[:15], before.masks)
    second = store.read_tensors(layout.run_file(study.root, "mlp", 2, 1))
    assert not np.array_equal(second["test"], before.test[2])
    np.testing.assert_allclose(after.test[2], (before.test[2] + second["test"]) / 2, rtol=1e-6)
    change(copy.root, "masks = 17\nseeds = 2", "masks = 15").build(workers=0)
    np.testing.assert_array_equal(Study.open(copy.root).bank().test, before.test)


def test_a_bank_of_single_runs_grows_by_second_runs_of_test_masks_and_nothing_is_fitted_anew(
    small_study: Study, tmp_path: Path
) -> None:
    single = study_with(tmp_path, small_study, SMALL_STUDY + "test_seeds = 1\n")
    single.build(workers=0)
    before = single.bank()
    np.testing.assert_array_equal(before.seeds, 1)
    old = {path: path.stat().st_mtime_ns for path in single.root.rglob("*.safetensors")}
    study = change(single.root, "test_seeds = 1\n", "")
    study.build(workers=0)
    bank = layout.bank_folder(study.root, "mlp")
    second = {layout.run_file(study.root, "mlp", mask, 1) for mask in (4, 9, 14)}
    assert set(bank.iterdir()) - old.keys() == second
    now = {path: path.stat().st_mtime_ns for path in old}
    assert {path.parent.name for path in old if now[path] != old[path]} == {"quality"}
    after = study.bank()
    np.testing.assert_array_equal(
        after.part("fit", "validation").test, before.part("fit", "validation").test
    )
    quality = study.quality("mlp")
    assert quality is not None
    assert (quality.seeds, quality.ceiling) == (2, None)  # three test masks are too few


def test_the_runs_of_a_test_mask_are_compared(small_study: Study) -> None:
    found = read_repeated_runs(small_study)
    np.testing.assert_array_equal(found.runs, 2)
    runs = [
        store.read_tensors(layout.run_file(small_study.root, "mlp", 9, seed))["test"]
        for seed in range(2)
    ]
    np.testing.assert_allclose(found.means[1], np.mean(runs, axis=0), rtol=1e-5)
    np.testing.assert_allclose(found.squares[1], 2 * np.var(runs, axis=0), rtol=1e-4, atol=1e-9)
    assert found.means.shape == found.squares.shape == (3, 60)
    assert found.squares.min(axis=1).max() > 0


@pytest.mark.parametrize(
    ("old", "new"),
    [("masks = 15", "masks = 15\nalpha = 0.4"), ("masks = 15", "masks = 15\nlogits = true")],
)
def test_a_changed_bank_is_refused_and_rebuilt_on_request(copy: Study, old: str, new: str) -> None:
    before = contents(copy.root)
    study = change(copy.root, old, new)
    with pytest.raises(StaleError, match="--rebuild bank"):
        study.build(workers=0)
    study.build(workers=0, rebuild="bank")
    assert has_bank(study, "mlp")
    change(copy.root, new, old).build(workers=0, rebuild="bank")
    assert contents(copy.root) == before


def test_runs_of_another_study_are_refused(copy: Study, study_folder: Path) -> None:
    other = change(study_folder, "train_limit = 300", "train_limit = 299")
    other.build(workers=0)
    shutil.copy(layout.run_file(other.root, "mlp", 1, 0), layout.run_file(copy.root, "mlp", 1, 0))
    with pytest.raises(StaleError, match=r"00001-0.* made from another spec, other data"):
        copy.build(workers=0)


def test_algorithms_share_masks_and_seeds(small_study: Study, tmp_path: Path) -> None:
    table = SMALL_STUDY[SMALL_STUDY.index("[algorithms") : SMALL_STUDY.index("[search]")]
    text = SMALL_STUDY.replace("[search]", table.replace("mlp]", "slow]") + "[search]")
    study = study_with(tmp_path, small_study, text)
    study.build(workers=0)
    first, second = study.bank("mlp"), study.bank("slow")
    np.testing.assert_array_equal(first.masks, second.masks)
    np.testing.assert_array_equal(first.test, second.test)  # both algorithms have the same recipe


# --- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("alpha = 0", "subset_runs.alpha = 0: input should be greater than 0"),
        ("alpha = 1.0", "subset_runs.alpha = 1.0: input should be less than 1"),
        ("masks = 4", "subset_runs.masks = 4: of every five masks three are for fitting"),
        ("seeds = 0", "subset_runs.seeds = 0: input should be greater than or equal to 1"),
        ("mask = 10", "unknown key 'subset_runs.mask'; did you mean 'masks'"),
    ],
)
def test_an_invalid_setting_is_named(study_folder: Path, line: str, words: str) -> None:
    with pytest.raises(SpecError) as caught:
        change(study_folder, "masks = 15", line)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("alpha", "words"), [(0.004, "leaves 1 of 300"), (0.999, "leaves none")])
def test_masks_of_one_or_of_all_examples_are_refused(copy: Study, alpha: float, words: str) -> None:
    study = change(copy.root, "masks = 15", f"masks = 15\nalpha = {alpha}")
    with pytest.raises(DataError, match=words):
        study.build(workers=0, rebuild="bank")


def test_weights_without_a_recipe_are_refused_before_anything_is_built(
    small_study: Study, study_folder: Path
) -> None:
    shutil.copy(layout.checkpoint_file(small_study.root, "mlp", 0), study_folder / "0.safetensors")
    recipe = "epochs = 4\nlearning_rate = 0.05\nbatch_size = 64\ncheckpoints = 2"
    study = change(study_folder, recipe, 'weights = ["0.safetensors"]')
    with pytest.raises(SpecError, match=r"only `weights`\. Add the recipe .*masks = 0"):
        study.build(workers=0)
    assert not study.has_data
    study = change(study_folder, "weights =", "epochs = 1\nweights =")
    study.build(workers=0)
    assert has_bank(study, "mlp")


def test_the_error_names_a_run_that_diverges(copy: Study) -> None:
    study = change(copy.root, "learning_rate = 0.05", "learning_rate = 1000.0")
    shutil.rmtree(layout.bank_folder(copy.root, "mlp"))
    with pytest.raises(DataloupeError, match=r"^Subset run 00000-0 of mlp: Training diverged"):
        train_bank(study, workers=0)


def test_without_a_bank_the_error_says_what_to_add(copy: Study) -> None:
    study = change(copy.root, "masks = 15", "masks = 0")
    assert not has_bank(study, "mlp")
    assert "bank" not in {step.stage for step in study.progress()}
    with pytest.raises(StoreError, match=r"no run bank of mlp: set `masks` under \[subset_runs\]"):
        study.bank()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda outputs: outputs.__setitem__(7, np.nan), "1 of its 60 outputs is NaN or infinite"),
        (lambda outputs: outputs.fill(0.5), "all its 60 outputs are the same"),
    ],
)
def test_unusable_outputs_are_refused_by_file_name(copy: Study, spoil, words: str) -> None:
    path = layout.run_file(copy.root, "mlp", 4, 0)
    shard = {name: np.array(array) for name, array in store.read_tensors(path).items()}
    spoil(shard["test"])
    store.write_tensors(path, shard, "")
    with pytest.raises(StoreError, match=rf"00004-0\.safetensors is broken: {words} on the test"):
        copy.bank()


# --- killed workers -----------------------------------------------------------------------------


KILLS = 4


@pytest.mark.determinism
def test_killing_workers_again_and_again_loses_and_repeats_no_run(
    small_study: Study, tmp_path: Path
) -> None:
    text = SMALL_STUDY.replace("masks = 15", "masks = 30\nseeds = 2")
    undisturbed = study_with(tmp_path / "a", small_study, text)
    train_bank(undisturbed, workers=0)
    study = study_with(tmp_path / "b", small_study, text)
    moments, killed, done = random.Random(0), 0, threading.Event()
    others = set(children_of(os.getpid()))  # such as the browser driver of other tests

    def kill_workers() -> None:
        nonlocal killed
        while killed < KILLS and not done.is_set():
            before = len(finished_runs(study, "mlp"))
            while len(finished_runs(study, "mlp")) == before and not done.wait(0.005):
                pass  # a worker takes a second to start and a twentieth of one to train
            time.sleep(moments.uniform(0.0, 0.1))
            if workers := sorted(set(children_of(os.getpid())) - others):
                os.kill(moments.choice(workers), signal.SIGKILL)
                killed += 1

    seen: list[int] = []

    def note(step: Progress) -> None:
        seen.append(step.done)

    killer = threading.Thread(target=kill_workers)
    killer.start()
    try:
        while not has_bank(study, "mlp"):
            seen.clear()
            with contextlib.suppress(DataloupeError):  # the workers of one run died three times
                train_bank(study, workers=2, report=note)
            assert seen == list(range(seen[0], seen[0] + len(seen)))
    finally:
        done.set()
        killer.join()
    assert killed == KILLS
    train_bank(study, workers=0)  # clears what workers left that died
    assert contents(study.root) == contents(undisturbed.root)
