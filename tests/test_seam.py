"""The task seam: a fifth task goes through everything, and nothing outside names a modality."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from engine import Study, store
from engine.applications.live import Query, StoredQuery, explain_stored, run_query
from engine.build.tasks import task_at, task_of
from engine.cli.main import main
from engine.store import layout
from engine.store.layout import SPLITS
from engine.study.examples import read_stacked_arrays
from tests.builders.copies import copy_of
from tests.builders.toy_task import own_toy_study, smoothed


def test_its_dataset_has_neither_classes_nor_outcomes(toy_study: Study) -> None:
    dataset = toy_study.dataset
    assert (dataset.labels, dataset.outcomes, dataset.classes) == ("number", None, [])
    assert (dataset.output, dataset.output_title) == ("prediction", "the predicted number")
    table, arrays = toy_study.table("test"), read_stacked_arrays(toy_study, "test")
    assert [float(text) for text in table["label"]] == pytest.approx(arrays["label"][:], rel=1e-4)
    assert set(table["site"]) == {"site 0", "site 1", "site 2"}


def test_its_predictions_are_what_the_task_says(toy_study: Study) -> None:
    table, arrays = toy_study.predictions("test"), read_stacked_arrays(toy_study, "test")
    assert list(table) == ["predicted", "error", "output"]
    np.testing.assert_allclose(table["predicted"] - arrays["label"][:], table["error"], rtol=1e-6)
    assert np.corrcoef(table["predicted"], arrays["label"][:])[0, 1] > 0.9


def test_outputs_use_the_context_of_their_checkpoint(toy_study: Study) -> None:
    from engine.build.models import load_checkpoint

    inputs = torch.from_numpy(np.array(read_stacked_arrays(toy_study, "test")["input"][:5]))
    drawn = []
    for checkpoint in (0, 1):
        path = layout.context_file(toy_study.root, "net", checkpoint)
        shift = torch.from_numpy(np.array(store.read_tensors(path)["shift"]))
        drawn.append(shift)
        model = load_checkpoint(toy_study, "net", checkpoint, "cpu")
        with torch.no_grad():
            wanted = smoothed(model, {"input": inputs, "context_shift": shift})
            bound = task_at(toy_study, "net", checkpoint).model_output(model, {"input": inputs})
        stored = store.read_tensors(layout.outputs_file(toy_study.root, "net", checkpoint, "test"))
        torch.testing.assert_close(bound, wanted)
        np.testing.assert_allclose(stored["output"][:5], wanted, rtol=1e-5, atol=1e-6)
    assert not torch.equal(*drawn)


def test_scores_agree_with_influence_on_a_linear_model(toy_study: Study) -> None:
    """For a linear model influence has a closed form, x (XᵀX + λ)⁻¹ xᵢ rᵢ."""
    train, test = (
        np.hstack([a["input"][:], np.ones((len(a["input"]), 1))])
        for a in (read_stacked_arrays(toy_study, split) for split in SPLITS)
    )
    residual = -toy_study.predictions("train", "line")["error"].to_numpy()
    gram = train.T @ train
    gram += 0.3 * np.diag(gram).mean() * np.eye(len(gram))
    wanted = test @ np.linalg.solve(gram, (train * residual[:, None]).T)
    found = toy_study.scores(np.arange(len(test)), "line", "trak")
    strong = np.abs(wanted) > np.abs(wanted).mean()
    assert (np.sign(found[strong]) == np.sign(wanted[strong])).mean() > 0.95
    each = [np.corrcoef(a, b)[0, 1] for a, b in zip(found, wanted, strict=True)]
    assert np.mean(each) > 0.8


VERBS = {
    "explain": ["explain", "{root}", "--test", "test-3"],
    "explain a training example": ["explain", "{root}", "--test", "test-3", "--method", "hybrid"],
    "whatif": ["whatif", "{root}", "--remove", "train-1,train-2"],
    "evaluate": ["evaluate", "{root}", "--by-group"],
    "compare": ["compare", "{root}", "--algorithms", "net", "line"],
    "methods": ["methods", "{root}"],
    "doctor": ["doctor", "{root}"],
}


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_works_without_classes(
    verb: str, toy_study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = own_toy_study(toy_study, tmp_path / "own") if verb == "compare" else toy_study
    assert main([part.format(root=own.root) for part in VERBS[verb]]) == 0
    printed = capsys.readouterr().out
    assert "class" not in printed
    assert "margin" not in printed


def test_explanations_name_the_output(toy_study: Study) -> None:
    found = json.loads(json.dumps(toy_study.explain("test-3").to_dict()))
    assert (found["output_name"], found["correct"], found["confidence"]) == (
        "prediction",
        None,
        None,
    )
    assert float(found["predicted"]) == pytest.approx(found["output"], abs=0.2)


def test_removals_change_outputs_and_flip_nothing(toy_study: Study, tmp_path: Path) -> None:
    own = own_toy_study(toy_study, tmp_path / "own")
    found = own.counterfactual(["train-1", "train-2"])
    assert (found.by_group, found.emptied) == ({}, [])
    assert len(found.lost) == len(found.won) == 0
    verified = own.verify(["train-1"], tests=["test-3"], seeds=2, control=True, workers=0)
    (outcome,) = verified.outcomes
    assert (outcome.flips, outcome.answers_without, outcome.flipped) == (None, [], False)
    assert outcome.change == pytest.approx(np.mean(outcome.without) - np.mean(outcome.with_all))
    assert len(verified.control_removed) == 1


def test_code_of_a_task_runs_only_where_it_is_trusted(toy_study: Study, tmp_path: Path) -> None:
    from engine.store.errors import UntrustedCode

    sent = copy_of(toy_study, tmp_path / "sent")
    from engine.store.trust import revoke

    revoke(sent.root)
    with pytest.raises(UntrustedCode, match="dataloupe trust"):
        task_of(sent)
    sent.explain("test-3")  # reading needs no code


def test_live_queries_work_without_classes(toy_study: Study) -> None:
    """Of a stored example with its stored scores, and of one from outside."""
    row = 3
    found = explain_stored(StoredQuery(toy_study.root, "net", "test", row))
    wanted = toy_study.scores([row], "net", "trak")[0]
    np.testing.assert_allclose(found.support_scores[:10], np.sort(wanted)[::-1][:10], rtol=1e-3)
    np.testing.assert_allclose(found.support_scores[:10], wanted[found.support[:10]], rtol=1e-3)
    predictions = toy_study.predictions("test", "net")
    assert found.value == pytest.approx(predictions["output"][row], rel=1e-4)
    text = " ".join(repr(float(x)) for x in read_stacked_arrays(toy_study, "test")["input"][row])
    own = run_query(Query(toy_study.root, "net", text))
    assert (own.probabilities, own.confidence, own.output.name) == (None, None, "prediction")
    assert own.predicted == pytest.approx(predictions["predicted"][row], rel=1e-4)
    np.testing.assert_array_equal(own.support[:10], found.support[:10])
    (output,) = toy_study.outputs(row)
    assert output.question == "What determines the predicted number?"
    assert output.stored
