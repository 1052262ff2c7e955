"""The task seam: a fifth task goes through everything, and nothing outside names a modality."""

from __future__ import annotations

import ast
import json
import re
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

ROOT = Path(__file__).parent.parent


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
    own = run_query(Query(toy_study.root, "net", {"text": text}))
    assert (own.probabilities, own.confidence, own.output.name) == (None, None, "prediction")
    assert own.predicted == pytest.approx(predictions["predicted"][row], rel=1e-4)
    np.testing.assert_array_equal(own.support[:10], found.support[:10])
    (output,) = toy_study.outputs(row)
    assert output.question == "What determines the predicted number?"
    assert output.stored


# --- what names a class or a modality -------------------------------------------------------------

AWARE = re.compile(
    r"(^|_)class(es)?($|_)|logit|confusion|(^|_)correct$|accuracy|picture|(^|_)image|thumbnail|sprite"
    r"|vocabulary|(^|_)tokens?$|^(image|text)-"
)
"""Names and keys that speak of classes, of right and wrong, or of a modality."""
VIEWS = ("dashboard/parts/gallery", "dashboard/parts/text", "dashboard/routes", "dashboard/server")
PICTURES = ("dashboard/read/sprite_sheets", "dashboard/read/picture_urls")
FREE = ("engine/tasks", "engine/models", "engine/data", *VIEWS, *PICTURES)
REASONS = {
    "dashboard/api": "leads to the pictures, and gives what the study has, as the pages do",
    "dashboard/location": "the filter by result, where predictions are right or wrong",
    "dashboard/login": "the key of the pictures' URLs",
    "dashboard/parts/charts/confusion_matrix": "only where there are classes",
    "dashboard/parts/removal/until_flip": "part of Brittle",
    "dashboard/parts/replay/exact_removal_set": "part of Brittle",
    "dashboard/parts/charts/map_preview": "the picture under the mouse, if any",
    "dashboard/parts/charts/scatter_map": "colors by what the examples have",
    "dashboard/parts/compare": "accuracies and transformations, where the study has them",
    "dashboard/parts/controls/live_result_download": "probabilities, where there are classes",
    "dashboard/parts/controls/slice_filters": "filters by the kind of label",
    "dashboard/parts/controls/selection_bar": "new labels, where there are classes",
    "dashboard/parts/curation": "needs classes",
    "dashboard/parts/layout": "the number of classes, if any; tokens of sign-in",
    "dashboard/parts/outputs": "outputs of a class, where there are any",
    "dashboard/parts/removal/removal_set_form": "choice by class, if any",
    "dashboard/parts/unlearn": "needs classes",
    "dashboard/read/columns": "columns by the kind of label",
    "dashboard/read/rows_in_words": "which labels rows have",
    "dashboard/parts/layout/header": "how many classes there are",
    "dashboard/parts/palette/search": "classes are found by their names",
    "dashboard/read/findings": "labels and recall of classes, by capability",
    "dashboard/read/studies": "columns by the kind of label, and pictures",
    "dashboard/read/supports": "part of Brittle",
    "dashboard/slice_parameters": "filters by the kind of label",
    "dashboard/views/brittle": "needs outcomes",
    "dashboard/views/live": "the view of one's own example",
    "dashboard/views/map": "choice by class, if any",
    "dashboard/views/overview": "figures by capability",
    "dashboard/views/provenance": "lists the classes, if any",
    "dashboard/views/training": "marks wrong predictions, where there are any",
    "engine/build/referencing": "pictures that stay where they are, by the task's function `fit`",
    "engine/study/references": "the same",
    "engine/study/thumbnails": "what pages show of pictures",
    "engine/applications/brittle": "needs outcomes",
    "engine/applications/case_studies": "cases of pictures",
    "engine/applications/curation": "needs classes",
    "engine/applications/found_instead": "the two parts of a pair",
    "engine/applications/live": "probabilities and thumbnails, where there are any",
    "engine/applications/modeldiff": "accuracies and transformations, where the study has them",
    "engine/applications/unlearning": "matches and audits class logits",
    "engine/applications/verification/outcomes": "the classes that models predict",
    "engine/attribution/evaluation/counterfactual": "flips, where predictions have classes",
    "engine/study/counterfactuals": "flips, where predictions have classes",
    "engine/attribution/datamodels/hybrid": "the image of a linear map",
    "engine/attribution/evaluation/verdict": "a local name",
    "engine/attribution/search": "the image of a linear map; the words of BM25",
    "engine/attribution/logit_gap": "logits of classes, for what needs classes",
    "engine/attribution/softmax": "probabilities of classes, for what needs classes",
    "engine/attribution/newton": "serves unlearning",
    "engine/attribution/trak/removal_direction": "serves unlearning",
    "engine/build/encoding": "shards hold thumbnails, if any",
    "engine/build/generating": "writes the pictures that models made",
    "engine/build/model_checks": "kept logits of a bank need classes",
    "engine/build/models": "class names and pixel statistics in a folder of transformers",
    "engine/build/retraining": "keeps the pictures that models make",
    "engine/build/stages/bank": "kept logits, where there are any",
    "engine/build/stages/data": "writes sprite sheets, if any",
    "engine/build/stages/predictions": "hands class names to the task",
    "engine/cli": "prints what there is",
    "engine/exchange/importing": "banks of logits become margins, where there are classes",
    "engine/exchange/uploads": "accuracies and the order of classes, where there are any",
    "engine/running": "tokens that are no words",
    "engine/store": "names of files, keys of study.toml and dataset.json",
    "engine/study/decisions": "new labels, where there are classes",
    "engine/study/capabilities": "the one place that says what a study has",
    "engine/study/example_outputs": "outputs of a class",
    "engine/study/examples": "thumbnails, if any",
    "engine/study/explanations": "whether a prediction is right, if that is known",
    "engine/study/groups": "classes are groups",
    "engine/study/models": "probabilities, where there are classes",
    "engine/study/output_names": "outputs of a class",
    "engine/study/retrieval": "the two sides of a pair",
    "engine/study/uploads": "a key of study.toml",
    "engine/training/checking": "models must give logits where there are outcomes",
    "engine/training/pretrained": "class names in a folder of transformers",
}
"""File or folder outside `FREE` that names a class or a modality → why it does."""


def aware_names(path: Path) -> set[str]:
    """Names and keys of a file that match `AWARE`, but for the arguments of capability checks."""
    tree = ast.parse(path.read_text())
    checks = {
        id(argument)
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name)
        if call.func.id in ("has", "missing", "require")
        for argument in call.args
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in checks:
            continue
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.arg):
            found.add(node.arg)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.alias):
            found.add(node.name.rpartition(".")[2])
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found |= {node.value} if re.fullmatch(r"[\w-]+", node.value) else set()
    return {name for name in found if AWARE.search(name)}


def test_whoever_names_a_class_or_a_modality_has_a_reason() -> None:
    aware = {}
    for room in ("engine", "dashboard"):
        for path in sorted((ROOT / room).rglob("*.py")):
            name = str(path.relative_to(ROOT).with_suffix(""))
            if not name.startswith(FREE) and (names := aware_names(path)):
                aware[name] = names
    unknown = {n: names for n, names in aware.items() if not n.startswith(tuple(REASONS))}
    assert not unknown, "ask for a capability or the task's own function, or state a reason"
    needless = [one for one in REASONS if not any(name.startswith(one) for name in aware)]
    assert not needless, "these files name none any more"
