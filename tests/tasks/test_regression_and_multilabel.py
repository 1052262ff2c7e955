"""Outputs and Q of every task by autograd; regression against its closed form; multi-label."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from engine.attribution.datamodels.fit import fit_datamodels
from engine.attribution.evaluation.lds import lds
from engine.attribution.trak.dual import attribute_dual
from engine.attribution.trak.linear_system import temper
from engine.attribution.trak.solver import Solver
from engine.models import build_model
from engine.store.errors import DataError, SpecError
from engine.tasks import TASKS, ModelOutput, Task, load_task, multilabel
from engine.tasks.regression import LabelScale, label_scale

CLASSES = ("cat", "dog", "owl")
ENCODING = {"shape": [1, 2, 2], "mean": [0.5], "std": [0.2], "classes": len(CLASSES)}
SCALE = {"label_mean": 40.0, "label_std": 2.5}


class Given(nn.Module):
    """Answers with its parameters, whatever it is shown."""

    def __init__(self, answers: Tensor) -> None:
        super().__init__()
        self.answers = nn.Parameter(answers)

    def forward(self, *inputs: Tensor, **named: Tensor) -> Tensor:
        return self.answers


def outputs_of(task: Task) -> list[ModelOutput]:
    """All outputs, those of single classes among them."""
    own = [*task.outputs]
    if task.labels == "classes":
        own += [task.output_named(multilabel.CLASS, (one,)) for one in range(len(CLASSES))]
    return own


def labels_of(task: Task, draw: Any, batch: int) -> Tensor:
    if task.labels == "number":
        numbers = st.floats(20, 60, width=32)
        return torch.tensor(draw(st.lists(numbers, min_size=batch, max_size=batch)))
    if task.labels == "classes":
        flags = st.lists(st.integers(0, 1), min_size=len(CLASSES), max_size=len(CLASSES))
        return torch.tensor(draw(st.lists(flags, min_size=batch, max_size=batch)))
    places = st.integers(0, len(CLASSES) - 1)
    return torch.tensor(draw(st.lists(places, min_size=batch, max_size=batch)))


@st.composite
def answers_and_batch(draw: Any, task: Task) -> tuple[Given, dict[str, Tensor]]:
    batch, width = draw(st.integers(1, 4)), task.width(CLASSES)
    numbers = st.floats(-6, 6, width=32)
    rows = st.lists(numbers, min_size=width, max_size=width)
    model = Given(torch.tensor(draw(st.lists(rows, min_size=batch, max_size=batch))))
    pictures = torch.zeros(batch, 1, 2, 2, dtype=torch.uint8)
    tokens = torch.zeros(batch, 3, dtype=torch.int64)
    raw = {"input": pictures if "picture" in task.views else tokens}
    raw["label"] = labels_of(task, draw, batch)
    return model, task.prepare(raw, ENCODING | SCALE)


@pytest.mark.parametrize(  # the others in test_pairs, test_text_to_text and test_diffusion
    "name", [name for name in TASKS if name not in ("image-text", "text-to-text", "diffusion")]
)
def test_q_is_how_fast_the_loss_falls_along_the_output(name: str) -> None:
    """Q = −dloss/df where the answers move in the direction in which f rises fastest."""
    task = load_task(name)

    @settings(max_examples=25, deadline=None)
    @given(answers_and_batch(task))
    def check(case: tuple[Given, dict[str, Tensor]]) -> None:
        model, batch = case
        (of_loss,) = torch.autograd.grad(task.loss(model, batch, 0.0).sum(), model.answers)
        for output in outputs_of(task):
            value = output.value(model, batch)
            assert value.shape == (len(model.answers),)
            (of_output,) = torch.autograd.grad(value.sum(), model.answers)
            rise = (of_output**2).sum(1)
            wanted = -(of_loss * of_output).sum(1) / rise
            torch.testing.assert_close(
                output.weight(model, batch).detach(), wanted, rtol=2e-3, atol=2e-5
            )

    check()


# --- regression -----------------------------------------------------------------------------------


def test_predictions_are_in_the_unit_of_the_labels() -> None:
    task = load_task("image-regression")
    raw = {"input": torch.zeros(3, 1, 2, 2), "label": torch.tensor([40.0, 45.0, 30.0])}
    batch = task.prepare(raw, ENCODING | SCALE)
    for answers in (torch.tensor([[0.0], [1.0], [-4.0]]), torch.tensor([0.0, 1.0, -4.0])):
        model = Given(answers)
        found = task.record(model, batch)
        np.testing.assert_allclose(found["prediction"].detach(), [40, 42.5, 30])
        np.testing.assert_allclose(task.loss(model, batch, 0.0).detach(), [0, 1, 0])
        weights = task.outputs[0].weight(model, batch).detach()
        assert weights.sign().tolist() == [0, 1, 0]  # label − prediction
    records = {"prediction": np.array([40, 42.5, 30])}
    table = task.summarize(records, {"label": raw["label"].numpy()}, [])
    assert table["predicted"].tolist() == [40, 42.5, 30]
    assert table["error"].tolist() == [0, -2.5, 0]


def test_what_regression_refuses() -> None:
    task = load_task("text-regression")
    raw = {"input": torch.zeros(2, 3, dtype=torch.int64), "label": torch.tensor([1.0, 2.0])}
    batch = task.prepare(raw, {"label_mean": 1.5, "label_std": 1.0})
    with pytest.raises(SpecError, match="one number for each"):
        task.loss(Given(torch.zeros(2, 3)), batch, 0.0)
    with pytest.raises(SpecError, match=r"label_smoothing = 0\.1.*Remove the key"):
        task.loss(Given(torch.zeros(2, 1)), batch, 0.1)
    with pytest.raises(DataError, match="nothing to learn"):
        label_scale(np.full(3, 2.0), LabelScale())
    assert label_scale(np.array([1.0, 3.0]), LabelScale()) == {"label_mean": 2, "label_std": 1}
    assert task.doubts is not None
    assert task.doubts(Given(torch.tensor([[1.0], [2.0]])), batch) == []
    (doubt,) = task.doubts(Given(torch.full((2, 1), 40.0)), batch)
    assert "label_mean and label_std" in doubt
    own = LabelScale(label_mean=0, label_std=1)
    assert label_scale(np.array([1.0, 5.0]), own) == {"label_mean": 0, "label_std": 1}


N_TRAIN, N_TEST, DAMPING = 80, 6, 0.05


class Ridge:
    """A linear model of pictures, and what leaves it by the closed form of ridge regression."""

    def __init__(self, label_std: float = 300.0) -> None:
        generator = np.random.default_rng(0)
        pixels = generator.integers(0, 256, (N_TRAIN + N_TEST, 1, 3, 3)).astype(np.uint8)
        slope = generator.normal(size=9)
        labels = pixels.reshape(-1, 9) @ slope + generator.normal(0, 60, N_TRAIN + N_TEST)
        labels = 7000 + labels / labels[:N_TRAIN].std() * label_std
        self.task = load_task("image-regression")
        self.encoding = {"shape": [1, 3, 3], "mean": [0.5], "std": [0.3]}
        self.encoding |= label_scale(labels[:N_TRAIN], LabelScale())
        raw = {"input": torch.from_numpy(pixels), "label": torch.from_numpy(labels)}
        batch = self.task.prepare(raw, self.encoding)
        self.train = {name: tensor[:N_TRAIN] for name, tensor in batch.items()}
        self.test = {name: tensor[N_TRAIN:] for name, tensor in batch.items()}
        inputs = batch["input"].flatten(1).numpy().astype(np.float64)
        inputs = np.hstack([inputs, np.ones((len(inputs), 1))])
        self.x, self.x_test = inputs[:N_TRAIN], inputs[N_TRAIN:]
        self.z = self.train["label"][:, 0].numpy().astype(np.float64)
        self.ridge = DAMPING * float((self.x**2).sum(1).mean())

    def weights(self, mask: np.ndarray) -> np.ndarray:
        x = self.x[mask]
        return np.linalg.solve(x.T @ x + self.ridge * np.eye(10), x.T @ self.z[mask])

    def predictions(self, mask: np.ndarray) -> np.ndarray:
        """On the test examples, in the labels' unit, of the model trained on some examples."""
        found = self.x_test @ self.weights(mask)
        return found * self.encoding["label_std"] + self.encoding["label_mean"]

    def model(self) -> nn.Module:
        weights = torch.from_numpy(self.weights(np.ones(N_TRAIN, bool))).float()
        model = build_model("mlp", {"widths": []}, self.encoding, 1, seed=0)
        with torch.no_grad():
            model.head.weight.copy_(weights[None, :9])
            model.head.bias.copy_(weights[9:])
        return model

    def scores(self) -> np.ndarray:
        """TRAK's."""
        output, model = self.task.outputs[0], self.model()
        solver = Solver("dual-exact", 10, 0, DAMPING, "", 1.0, "plain")
        found = attribute_dual(
            model,
            output.value,
            lambda: iter([self.train]),
            lambda: iter([self.test]),
            solver,
            0,
            2**30,
        )
        with torch.no_grad():
            q = temper(output.weight(model, self.train), solver)
        return (found * q).numpy()


def test_trak_of_a_linear_regression_is_the_effect_of_leaving_one_out() -> None:
    problem = Ridge()
    everything = np.ones(N_TRAIN, bool)
    with_all = problem.predictions(everything)
    effects = []
    for row in range(N_TRAIN):
        without = everything.copy()
        without[row] = False
        effects.append(with_all - problem.predictions(without))
    wanted, found = np.array(effects).T, problem.scores()
    for of_scores, of_effects in zip(found, wanted, strict=True):
        assert np.corrcoef(of_scores, of_effects)[0, 1] > 0.99
        strong = np.abs(of_effects) > 0.05 * np.abs(of_effects).max()
        assert (np.sign(of_scores) == np.sign(of_effects))[strong].all()


def test_datamodels_and_trak_predict_regressions_on_subsets() -> None:
    problem = Ridge()
    generator = np.random.default_rng(1)
    masks = generator.random((300, N_TRAIN)) < 0.5
    outputs = np.array([problem.predictions(mask) for mask in masks])
    held_out = np.arange(240) % 4 == 0
    fitted = fit_datamodels(masks[:240], outputs[:240], held_out, lambdas=8)
    weights = fitted.rows(np.arange(N_TEST))
    assert lds(weights, masks[240:], outputs[240:], resamples=100).low > 0.3
    assert lds(problem.scores(), masks[240:], outputs[240:], resamples=100).low > 0.5


# --- multi-label ----------------------------------------------------------------------------------


def test_margins_of_classes_are_log_odds_of_the_right_answers() -> None:
    task = load_task("text-multilabel")
    batch = {
        "input": torch.zeros(2, 3, dtype=torch.int64),
        "label": torch.tensor([[1, 0, 1], [0, 0, 0]]),
    }
    answers = [[2.0, -1.0, -0.5], [-3.0, 0.25, -1.0]]
    margins = np.array([[2.0, 1.0, -0.5], [3.0, -0.25, 1.0]])
    model = Given(torch.tensor(answers))
    for place in range(3):
        output = multilabel.make_output(multilabel.CLASS, (place,))
        odds = np.array(answers)[:, place]  # the class's, whatever the labels are
        np.testing.assert_allclose(output.value(model, batch).detach(), odds)
        assert output.from_record is not None
        np.testing.assert_allclose(output.from_record({"logits": np.array(answers)}), odds)
        signs = output.weight(model, batch).detach().sign()
        assert signs.tolist() == (batch["label"][:, place] * 2 - 1).tolist()
    np.testing.assert_allclose(task.model_output(model, batch).detach(), margins.mean(1))
    losses = np.log1p(np.exp(-margins)).mean(1)
    np.testing.assert_allclose(task.loss(model, batch, 0.0).detach(), losses, rtol=1e-6)
    assert task.loss(model, batch, 0.2).sum() > task.loss(model, batch, 0.0).sum()
    arrays = {"label": batch["label"].numpy()}
    table = task.summarize({"logits": np.array(answers)}, arrays, CLASSES)
    assert table["predicted"].tolist() == ["cat", "dog"]
    assert table["correct"].tolist() == [False, False]
    np.testing.assert_allclose(table["share_right"], [2 / 3, 2 / 3])
    none = task.summarize({"logits": -np.ones((2, 3))}, arrays, CLASSES)
    assert (none["predicted"].tolist(), none["correct"].tolist()) == (["none"] * 2, [False, True])
    with pytest.raises(SpecError, match="a logit for each class"):
        task.loss(Given(torch.zeros(2, 2)), batch, 0.0)
