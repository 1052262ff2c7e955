"""A study of diffusion: from its spec to scores, chosen outputs and verbs."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from engine import Study, store
from engine.applications.live import StoredQuery, explain_stored
from engine.attribution.datamodels.run_bank import draw_mask
from engine.attribution.trak.kernel import first_examples
from engine.attribution.trak.primal import primal_projection
from engine.attribution.trak.projection import project
from engine.build.batches import batches_of
from engine.build.build import build_data
from engine.build.models import initial_model, load_checkpoint
from engine.build.tasks import samples_of, task_at, task_of
from engine.cli.main import main
from engine.store import layout
from engine.store.errors import DataError, DataloupeError, UnknownName
from engine.study.examples import read_stacked_arrays
from engine.study.models import checkpoint_seed
from engine.study.run_banks import run_seed
from engine.study.score_matrices import stored_solver
from engine.training.outputs import evaluate
from engine.training.trainer import train
from tests.builders import diffusion
from tests.builders.copies import copy_of
from tests.builders.diffusion import CLASSES


def test_what_it_keeps_of_the_data(squares_study: Study) -> None:
    dataset = squares_study.dataset
    assert (dataset.labels, dataset.outcomes, dataset.classes) == ("none", None, [])
    assert dataset.encoding["conditions"] == list(CLASSES)
    assert "one of 2 in the column 'label'" in " ".join(dataset.notes)
    table, arrays = squares_study.table("test"), read_stacked_arrays(squares_study, "test")
    assert table["class"].tolist() == [CLASSES[n] for n in arrays["class_labels"]]
    assert len(set(arrays["key"])) == len(arrays["key"])


def test_predictions_are_errors(squares_study: Study) -> None:
    table = squares_study.predictions("test")
    assert list(table) == ["predicted", "output"]
    np.testing.assert_allclose(table["predicted"], -table["output"], rtol=1e-5)
    shards = [
        store.read_tensors(layout.outputs_file(squares_study.root, "unet", m, "test"))
        for m in (0, 1)
    ]
    assert shards[0]["errors"].shape == (len(table), 4)
    both = [shard["errors"].mean(1) for shard in shards]
    np.testing.assert_allclose(np.mean(both, axis=0), table["predicted"], rtol=1e-5)
    assert not np.allclose(*both)


def test_errors_are_the_same_whenever_they_are_computed(squares_study: Study) -> None:
    """Timesteps and noise are fixed for each example and checkpoint."""
    arrays = read_stacked_arrays(squares_study, "test")
    stored = store.read_tensors(layout.outputs_file(squares_study.root, "unet", 1, "test"))
    model = load_checkpoint(squares_study, "unet", 1, "cpu")
    task, rows = task_at(squares_study, "unet", 1), np.array([13, 2, 7])
    some = {name: np.array(array[rows]) for name, array in arrays.items()}
    found = evaluate(task, model, some, squares_study.dataset.encoding, 2, "cpu")
    for name in ("errors", "output", "embeddings"):
        np.testing.assert_allclose(found[name], stored[name][rows], rtol=1e-4, atol=1e-6)


def test_subset_runs_are_judged_with_one_noise(squares_study: Study) -> None:
    """With noise of their own, outputs of a run would differ from another's by that alone."""
    study, algorithm = squares_study, "unet"
    mask, seed = draw_mask(study.spec.seed, 3, study.dataset.n_train, 0.5), run_seed(study, 3, 0)
    model = train(
        task_of(study),
        initial_model(study, study.spec.algorithms[algorithm], seed),
        read_stacked_arrays(study, "train"),
        study.dataset.encoding,
        study.spec.algorithms[algorithm],
        seed,
        "cpu",
        np.flatnonzero(mask),
    )
    arrays, encoding = read_stacked_arrays(study, "test"), study.dataset.encoding
    found = evaluate(task_at(study, algorithm, 0), model, arrays, encoding, 512, "cpu")["output"]
    np.testing.assert_allclose(study.bank(train=False).test[3], found, rtol=1e-4)


def dense_scores(study: Study, output: str, numbers: tuple[int, ...], row: int) -> np.ndarray:
    """Scores by the definition, in float64: Φ (CᵀC + λI)⁻¹ φ, with Φ of the loss of training and
    C of predictions with random weights, both projected."""
    solver, parts = stored_solver(study, "unet"), []
    for checkpoint in range(2):
        model = load_checkpoint(study, "unet", checkpoint, "cpu")
        task, seed = task_at(study, "unet", checkpoint), checkpoint_seed(study, checkpoint)
        (train,) = batches_of(study, "train", "cpu", study.dataset.n_train)()
        (test,) = batches_of(study, "test", "cpu", 1, row, row + 1)()
        first = first_examples(batches_of(study, "train", "cpu", 128))
        projection = primal_projection(model, task.trained_output, first, solver, seed)

        def gradients(function, batch, model=model, projection=projection):  # type: ignore[no-untyped-def]
            return project(model, function, batch, projection).double()

        phi = gradients(task.model_output, train)
        c = torch.cat([gradients(one, train) for one in samples_of(task, solver)])
        assert len(c) == 11 * len(phi)
        gram = c.T @ c / 11
        gram += solver.damping * gram.diagonal().mean() * torch.eye(len(gram))
        of_test = gradients(task.output_named(output, numbers).value, test)[0]
        parts.append(phi @ torch.linalg.solve(gram, of_test))
    scores = torch.stack(parts).mean(0).numpy()
    threshold = solver.soft_threshold * scores.std()
    return scores - scores.clip(-threshold, threshold)


def test_scores_are_those_of_dense_gradients(squares_study: Study) -> None:
    solver = stored_solver(squares_study, "unet")
    assert (solver.kind, solver.curvature, solver.samples) == ("primal", "sampled", 11)
    wanted = dense_scores(squares_study, "denoising", (), 3)
    found = squares_study.scores([3], "unet", "trak")[0]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-3 * np.abs(wanted).max())


@pytest.mark.parametrize(
    ("name", "family", "numbers"),
    [("timesteps:11-25", "timesteps:{}", (10, 24)), ("squared-norm", "squared-norm", ())],
)
def test_chosen_outputs_are_scored_live(
    name: str, family: str, numbers: tuple[int, ...], squares_study: Study
) -> None:
    wanted = dense_scores(squares_study, family, numbers, 3)
    found = explain_stored(StoredQuery(squares_study.root, "unet", "test", 3, name, 20))
    best = np.argsort(-wanted)[:5]
    np.testing.assert_array_equal(found.support[:5], best)
    np.testing.assert_allclose(found.support_scores[:5], wanted[best], rtol=1e-2)
    assert found.output.name == name


def test_names_of_timesteps_are_read(squares_study: Study) -> None:
    found = squares_study.explain("test-3", output="timesteps: 1 - 9")
    assert (found.output_name, found.question) == (
        "timesteps:1-9",
        "Which training pictures support timesteps 1-9?",
    )
    for wrong in ("timesteps:9-1", "timesteps:0-3", "timesteps:3", "timesteps:a-b"):
        with pytest.raises(UnknownName, match="timesteps:1-100"):
            squares_study.explain("test-3", output=wrong)
    with pytest.raises(DataloupeError, match="no timestep 51: there are 50"):
        squares_study.explain("test-3", output="timesteps:1-51")


VERBS = {
    "explain": ["explain", "{root}", "--test", "test-3"],
    "whatif": ["whatif", "{root}", "--remove", "train-1,train-2"],
    "evaluate": ["evaluate", "{root}"],
    "methods": ["methods", "{root}"],
    "doctor": ["doctor", "{root}"],
}


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_works(
    verb: str, squares_study: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([part.format(root=squares_study.root) for part in VERBS[verb]]) == 0
    assert not re.search(r"\bnan\b|margin", capsys.readouterr().out)


def test_an_interrupted_build_goes_on_to_the_same_bytes(
    squares_study: Study, tmp_path: Path
) -> None:
    study = copy_of(squares_study, tmp_path / "own")
    lost = [
        layout.checkpoint_file(study.root, "unet", 1),
        layout.context_file(study.root, "unet", 1),
        layout.outputs_file(study.root, "unet", 1, "test"),
        layout.run_file(study.root, "unet", 4, 0),
    ]
    before = [store.read_tensors(path) for path in lost]
    before = [{name: np.array(array) for name, array in one.items()} for one in before]
    for path in lost:
        path.unlink()
    Study.open(study.root).build("cpu", workers=0)
    for path, wanted in zip(lost, before, strict=True):
        found = store.read_tensors(path)
        assert found.keys() == wanted.keys()
        for name, array in wanted.items():
            np.testing.assert_array_equal(found[name], array, err_msg=f"{path.name} {name}")


# --- classes of pictures --------------------------------------------------------------------------


def read_data(folder: Path, task: str = "", **arrays: np.ndarray) -> Study:
    """A study of which the data alone are read.

    Args:
        arrays: Instead of those of the squares.
    """
    study = diffusion.squares_study(folder, task)
    path = folder / "squares.npz"
    whole = {**dict(np.load(path)), **arrays}
    np.savez(path, allow_pickle=False, **whole)
    build_data(study)
    return Study.open(study.root)


def test_pictures_without_classes(tmp_path: Path) -> None:
    study = diffusion.squares_study(tmp_path, 'class_column = "none"\nprediction = "epsilon"')
    spec = layout.spec_file(study.root)
    spec.write_text(spec.read_text().partition("[subset_runs]")[0])
    study = Study.open(study.root)
    study.build("cpu", workers=0)
    assert "class_labels" not in read_stacked_arrays(study, "train")
    assert study.dataset.notes[0] == "Pictures are made without classes."
    assert study.explain(0).supporting


def test_classes_that_are_numbers(tmp_path: Path) -> None:
    numbers = {"train_label": np.arange(96) % 3 + 4, "test_label": np.arange(20) % 3 + 4}
    study = read_data(tmp_path, 'class_column = "label"', **numbers)
    assert study.dataset.encoding["conditions"] == ["4", "5", "6"]
    assert study.table("test")["class"].tolist()[:4] == ["4", "5", "6", "4"]


def test_what_classes_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no column 'kind' of classes; there are label"):
        read_data(tmp_path / "a", 'class_column = "kind"')
    with pytest.raises(
        DataError, match=r"has 1 class, and 2 to 1,000 are possible\. Write class_c"
    ):
        read_data(tmp_path / "b", train_label=np.zeros(96, int))
    with pytest.raises(DataError, match=r"'test-0': 'up' is no class .* left, right\."):
        read_data(tmp_path / "c", test_label=np.array(["up"] * 20))


def test_repeated_pictures_are_pointed_out(tmp_path: Path) -> None:
    pictures, _ = diffusion.squares(96, 0)
    sides = np.array(["left", "right"] * 48)
    pictures[2], pictures[4] = pictures[0], pictures[1]
    tests = {"test_input": pictures[:20], "test_label": sides[:20]}
    study = read_data(tmp_path, train_input=pictures, train_label=sides, **tests)
    text = " ".join(study.dataset.warnings)
    assert "1 training picture of 96 repeats another one" in text, "of one class"
    assert "20 test pictures of 20 occur in the training split" in text
