"""Other outputs than the stored one: their live scores against those of independent ways."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from engine import DataloupeError, StoreError, Study, store
from engine.applications.live import Attributed, Query, StoredQuery, explain_stored, run_query
from engine.attribution.softmax import margins
from engine.attribution.trak.dual import attribute_dual
from engine.attribution.trak.linear_system import example_weights
from engine.build.batches import batches_of, stored_out_to_loss
from engine.build.models import load_checkpoint
from engine.build.tasks import task_of
from engine.cli.main import main
from engine.store import layout
from engine.store.errors import MissingCapability
from engine.study.examples import read_stacked_arrays
from engine.study.models import checkpoint_seed, read_class_numbers, read_mean_logits
from engine.study.score_matrices import stored_solver
from tests.builders.copies import copy_of
from tests.builders.exact_gradients import dense_gradients

N = 300


def live(study: Study, row: int, output: str | None, split: str = "test") -> Attributed:
    assert split in ("train", "test")
    query = StoredQuery(study.root, "mlp", split, row, output, N)  # type: ignore[arg-type]
    return explain_stored(query)


def every(found: Attributed) -> np.ndarray:
    """All scores, in the order of the training examples."""
    scores = np.zeros(N, np.float32)
    scores[found.support], scores[found.oppose] = found.support_scores, found.oppose_scores
    return scores


def finished(study: Study, parts: list[np.ndarray]) -> np.ndarray:
    """Scores of one example from those of each checkpoint, as the trak stage finishes them."""
    mean_q = store.read_tensors(layout.weighting_file(study.root, "mlp"))["out_to_loss"]
    scores: np.ndarray = mean_q * np.mean(parts, axis=0)
    threshold = stored_solver(study, "mlp").soft_threshold * scores.std()
    return np.sign(scores) * np.maximum(np.abs(scores) - threshold, 0)


def mistake(study: Study) -> tuple[int, str, str]:
    """A wrong prediction: row, label, predicted class."""
    found = study.predictions("test")
    row = int(np.flatnonzero(~found["correct"])[1])
    return row, str(study.table("test")["label"][row]), str(found["predicted"][row])


def test_the_default_output_gets_its_stored_scores(small_study: Study) -> None:
    for row in (0, 1, 33):
        label = small_study.table("test")["label"][row]
        wanted = small_study.scores([row], method="trak")[0]
        for name in (None, "margin", f"class:{label}"):
            found = live(small_study, row, name)
            np.testing.assert_allclose(every(found), wanted, rtol=1e-3, atol=1e-5 * wanted.max())
            assert found.output.name == f"class:{label}"
            assert found.value == pytest.approx(
                small_study.predictions("test")["output"][row], rel=1e-5
            )


def test_a_class_gets_the_scores_of_examples_with_that_label(small_study: Study) -> None:
    """Against the scores of the whole test split with other labels, by the stage's own solver."""
    task, solver = task_of(small_study), stored_solver(small_study, "mlp")
    for number, name in ((0, "T-shirt/top"), (7, "Sneaker")):

        def relabeled(number: int = number):  # type: ignore[no-untyped-def]
            for batch in batches_of(small_study, "test", "cpu", 16)():
                yield {**batch, "label": torch.full_like(batch["label"], number)}

        parts = [
            attribute_dual(
                load_checkpoint(small_study, "mlp", m, "cpu"),
                task.model_output,
                batches_of(small_study, "train", "cpu", 64),
                relabeled,
                solver,
                checkpoint_seed(small_study, m),
                2**28,
                torch.from_numpy(stored_out_to_loss(small_study, "mlp", m)),
            ).numpy()
            for m in range(2)
        ]
        logits = read_mean_logits(small_study, "test", "mlp")
        for row in (1, 20):
            wanted = finished(small_study, [part[row] for part in parts])
            found = live(small_study, row, f"class:{name}")
            np.testing.assert_allclose(
                every(found), wanted, rtol=1e-3, atol=1e-5 * abs(wanted).max()
            )
            assert found.value == pytest.approx(margins(logits, np.full(60, number))[row], rel=1e-5)


def dense_difference(study: Study, row: int, a: int, b: int) -> np.ndarray:
    """A rather than B by the definition: dense gradients by autograd, float64."""
    solver, task = stored_solver(study, "mlp"), task_of(study)
    parts = []
    for m in range(2):
        model = load_checkpoint(study, "mlp", m, "cpu")
        (train,) = batches_of(study, "train", "cpu", N)()
        (test,) = batches_of(study, "test", "cpu", 1, row, row + 1)()

        def difference(model, batch):  # type: ignore[no-untyped-def]
            logits = model(batch["input"])
            return logits[:, a] - logits[:, b]

        phi = dense_gradients(model, task.model_output, train).double()
        gradient = dense_gradients(model, difference, test).double()[0]
        q = torch.from_numpy(stored_out_to_loss(study, "mlp", m))
        weights = example_weights(q, solver)
        root = torch.ones(N).double() if weights is None else weights.double().sqrt()
        kernel = root[:, None] * (phi @ phi.T) * root
        kernel += solver.damping * kernel.diagonal().mean() * torch.eye(N)
        parts.append((torch.linalg.solve(kernel, root * (phi @ gradient)) / root).numpy())
    return finished(study, parts)


def test_a_rather_than_b_is_the_gradient_of_the_difference_of_logits(small_study: Study) -> None:
    assert stored_solver(small_study, "mlp").kind == "dual-exact"
    classes = small_study.dataset.classes
    logits = read_mean_logits(small_study, "test", "mlp")
    for row, a, b in ((1, 4, 6), (2, 0, 9)):
        wanted = dense_difference(small_study, row, a, b)
        found = live(small_study, row, f"{classes[a]}>{classes[b]}")
        np.testing.assert_allclose(every(found), wanted, rtol=1e-3, atol=1e-4 * abs(wanted).max())
        assert found.value == pytest.approx(logits[row, a] - logits[row, b], rel=1e-5)
        swapped = live(small_study, row, f"{classes[b]}>{classes[a]}")
        np.testing.assert_allclose(every(swapped), -wanted, rtol=1e-3, atol=1e-4 * wanted.max())


def test_examples_of_a_support_a_rather_than_b_and_those_of_b_oppose_it(small_study: Study) -> None:
    labels = small_study.table("train")["label"].to_numpy()
    classes = small_study.dataset.classes
    for a, b in (("Coat", "Sneaker"), ("Bag", "Shirt"), ("Shirt", "T-shirt/top")):
        scores = np.array([every(live(small_study, row, f"{a}>{b}")) for row in range(0, 60, 6)])
        assert (scores[:, labels == a].mean(1) > 0).all()
        assert (scores[:, labels == b].mean(1) < 0).all()
        means = [scores[:, labels == name].mean() for name in classes]
        assert (classes[np.argmax(means)], classes[np.argmin(means)]) == (a, b)


def test_a_training_example_can_be_asked_about(small_study: Study) -> None:
    found = live(small_study, 5, None, "train")
    assert every(found)[5] > 0  # it supports itself
    assert found.output.classes == (small_study.table("train")["label"][5],)


def test_weights_of_chosen_outputs_are_derivatives_of_the_loss(small_study: Study) -> None:
    """Q = −dloss/df: along f alone for a margin; a difference moves both logits by half."""
    task = task_of(small_study)
    model = load_checkpoint(small_study, "mlp", 0, "cpu")
    (batch,) = batches_of(small_study, "test", "cpu", 60)()
    logits = model(batch["input"]).detach().requires_grad_()
    (slope,) = torch.autograd.grad(
        torch.nn.functional.cross_entropy(logits, batch["label"], reduction="sum"), logits
    )
    a, b = 4, 6
    wanted = -(slope[:, a] - slope[:, b]) / 2
    found = task.output_named("{}>{}", (a, b)).weight(model, batch)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)
    p = logits.softmax(1)[:, a]
    torch.testing.assert_close(task.output_named("class:{}", (a,)).weight(model, batch), 1 - p)
    assert read_class_numbers(small_study, "test")[0] == batch["label"][0]


def test_a_class_of_several_is_explained(colors_study: Study) -> None:
    """Its log-odds, whatever the labels are: training texts with the class support it."""
    arrays = read_stacked_arrays(colors_study, "train")
    classes = colors_study.dataset.classes
    logits = read_mean_logits(colors_study, "test", "words")
    assert colors_study.outputs(0)[0].name == "mean-margin"
    for number, name in enumerate(classes[:3]):
        there = np.array(arrays["label"][:, number]) > 0
        for row in (0, 1):
            query = StoredQuery(colors_study.root, "words", "test", row, f"class:{name}")
            found = explain_stored(query)
            assert found.value == pytest.approx(logits[row, number], rel=1e-5)
            scores = np.zeros(len(there), np.float32)
            scores[found.support], scores[found.oppose] = found.support_scores, found.oppose_scores
            assert scores[there].mean() > scores[~there].mean()
    own = run_query(
        Query(colors_study.root, "words", {"text": colors_study.table("test")["text"][0]})
    )
    assert own.output.name == f"class:{classes[0]}"
    assert own.value == pytest.approx(logits[0, 0], rel=1e-4)
    with pytest.raises(DataloupeError, match="has no label, so the mean margin"):
        run_query(Query(colors_study.root, "words", {"text": "red"}, "mean-margin"))


# --- the public study and the command line -------------------------------------------------------


def test_explain_answers_for_any_output(small_study: Study) -> None:
    row, label, predicted = mistake(small_study)
    default = small_study.explain(row, 5)
    assert default.question == f"Why not “{label}”?"
    names = [output.name for output in small_study.outputs(row)]
    assert names[:2] == ["margin", "predicted"]
    assert names[3] == f"{predicted}>{label}"
    stored = small_study.explain(row, 5, output="margin")
    assert stored == replace(default, output_name="margin")
    assert small_study.explain(row, 5, output=f"class:{label}").supporting == default.supporting
    why = small_study.explain(row, 5, output=f"{predicted}>{label}")
    assert why.question == f"Why “{predicted}” rather than “{label}”?"
    assert why.output_name == f"{predicted}>{label}"
    assert why.output > 0
    found = live(small_study, row, why.output_name)
    assert [one.row for one in why.supporting] == list(found.support[:5])
    assert [one.score for one in why.opposing] == pytest.approx(found.oppose_scores[:5])
    assert not why.badge.calibrated
    assert "live" in str(why.badge)
    assert "LDS of the margin" in str(why.badge)
    assert "Computed live from 2 of 2 checkpoints, not calibrated" in why.badge.reason
    assert why.predicted == predicted
    assert small_study.explain(row, 5, output="predicted").question == f"Why “{predicted}”?"


def test_the_last_answers_are_kept(small_study: Study) -> None:
    assert live(small_study, 7, "Bag>Coat") is live(small_study, 7, "Bag>Coat")


def test_other_methods_have_no_scores_of_other_outputs(small_study: Study) -> None:
    row, _, _ = mistake(small_study)
    other = next(
        one
        for one in ("hybrid", "lasso")
        if (layout.method_file(small_study.root, "mlp", one).exists())
    )
    with pytest.raises(DataloupeError, match=r"are computed live by trak\. Leave the method out"):
        small_study.explain(row, method=other, output="predicted")
    assert small_study.explain(row, method=other, output="margin").method == other


def test_the_verb_answers_for_any_output(
    small_study: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    row, label, predicted = mistake(small_study)
    command = ["explain", str(small_study.root), "--test", f"#{row}", "--k", "3"]
    assert main([*command, "--json", "--output", f"{predicted}>{label}"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["output_name"] == f"{predicted}>{label}"
    assert found["question"] == f"Why “{predicted}” rather than “{label}”?"
    assert len(found["supporting"]) == 3
    assert main([*command, "--output", f"{predicted}>{label}"]) == 0
    assert "rather than" in capsys.readouterr().out
    assert main([*command, "--output", predicted]) == 2
    assert f"Did you mean 'class:{predicted}'?" in " ".join(capsys.readouterr().err.split())
    train = ["explain", str(small_study.root), "--train", "#0", "--output", "margin"]
    assert main(train) == 2
    assert "--output is for test examples" in capsys.readouterr().err


# --- what is missing -----------------------------------------------------------------------------


def test_what_is_missing_is_said(small_study: Study, tmp_path: Path) -> None:
    study = copy_of(small_study, tmp_path / "copy")
    row, _, _ = mistake(study)
    features = layout.live_traces_file(study.root, "mlp", 1, 0)
    features.rename(features.with_suffix(".gone"))
    with pytest.raises(MissingCapability, match="which is missing: run `dataloupe build"):
        study.explain(row, output="predicted")
    path = layout.live_file(study.root, "mlp")
    kept = store.read_json(path)
    store.write_json(path, {**kept, "checkpoints": 0, "reason": "it is huge"}, "")
    with pytest.raises(MissingCapability, match="live queries: it is huge"):
        study.explain(row, output="predicted")
    path.unlink()
    with pytest.raises(MissingCapability, match="prepared for live queries: run `dataloupe build"):
        study.explain(row, output="predicted")
    assert study.explain(row, output="margin").supporting


def test_fewer_checkpoints_than_were_prepared_are_refused(
    small_study: Study, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(small_study.root, tmp_path / "copy"))
    spec = layout.spec_file(root)
    spec.write_text(spec.read_text().replace("checkpoints = 2", "checkpoints = 1"))
    with pytest.raises(StoreError, match=r"names 1 checkpoint of mlp, but live queries"):
        run_query(Query(root, "mlp", {"picture": b""}, None))


def test_an_example_from_outside_has_no_label(small_study: Study) -> None:
    from tests.applications.test_live import pixels_of, png

    content = png(pixels_of(small_study, 1))
    with pytest.raises(DataloupeError, match="has no label, so the margin of the true label"):
        run_query(Query(small_study.root, "mlp", {"picture": content}, "margin"))
    found = run_query(Query(small_study.root, "mlp", {"picture": content}, "Coat>Shirt"))
    stored = live(small_study, 1, "Coat>Shirt")
    np.testing.assert_array_equal(found.support[:20], stored.support[:20])
    assert found.value == pytest.approx(stored.value, rel=1e-4)
