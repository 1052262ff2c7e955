"""Forget what a person's home is: unlearning where models generate texts, audited by questions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from engine import DataloupeError, Study
from engine.applications.unlearning import output_changes
from engine.applications.unlearning.audit import audit
from engine.applications.unlearning.audit_record import Audit
from engine.applications.unlearning.before_after import read_before_after, supported
from engine.applications.unlearning.checks import methods_of
from engine.applications.unlearning.method_verdict import method_verdict
from engine.applications.unlearning.output_changes import predicted_changes, units
from engine.applications.unlearning.predicted_effect import read_predicted_margins
from engine.applications.unlearning.predicted_size import LEAST, MOST, size_of_changes
from engine.applications.unlearning.settings import Hyper
from engine.applications.unlearning.validation import validation_set
from engine.build.batches import batches_of
from engine.build.models import load_checkpoint
from engine.build.retraining import FIRST_ORACLE, model_without
from engine.build.tasks import task_of
from engine.cli.main import main
from engine.store import layout
from engine.tasks import sequences
from engine.tasks.outcomes import EXACT
from tests.builders.copies import copy_of

N = 4
HYPER = {"matching": Hyper(0.003, 0.5, batch=16)}


def about(study: Study, person: str) -> list[int]:
    """Training rows that tell where a person lives."""
    return np.flatnonzero(study.table("train")["subject"] == person).tolist()


@pytest.fixture(scope="module")
def with_audit(facts_study: Study, tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Audit]:
    study = copy_of(facts_study, tmp_path_factory.mktemp("audited") / "study")
    forget = about(study, "Alba")
    found = audit(
        study, forget, methods=["matching", "both"], models=N, budget=0.3, hyper=HYPER, workers=0
    )
    return study, found


def test_the_output_follows_from_what_is_matched(facts_study: Study) -> None:
    """Its mean is the log-odds; behind the end of a target there is nothing."""
    model, task = load_checkpoint(facts_study, "t5", 0, "cpu"), task_of(facts_study)
    (batch,) = batches_of(facts_study, "test", "cpu", 16)()
    with torch.no_grad():
        matched, output = task.matched(model, batch), task.model_output(model, batch)
        kept = task.record(model, batch)["token_log_odds"]
    assert EXACT.matched is not None
    found = EXACT.matched.output(matched.numpy(), np.zeros(16, np.int64))
    np.testing.assert_allclose(found, output, rtol=1e-5)
    torch.testing.assert_close(kept, matched)
    behind = batch["label"] == sequences.IGNORED
    assert behind.any()
    assert not matched[behind].any()


def test_predicted_changes_of_one_example_are_its_scores(
    facts_study: Study, tmp_path: Path
) -> None:
    """In units of the output, of the output by every token, as stored scores are."""
    study = copy_of(facts_study, tmp_path / "own")
    forget = tuple(about(study, "Alba")[:1])
    found = predicted_changes(study, forget, forget, "t5")
    factors = units(study, "t5")[list(forget)]
    scores = study.scores(np.arange(study.dataset.n_test), "t5", "trak")[:, list(forget)]
    raw = -(scores * factors).sum(axis=1)
    predicted = found.test.mean(axis=1)
    assert np.corrcoef(predicted, raw)[0, 1] > 0.99  # stored scores are thresholded
    effect = read_predicted_margins(study, "t5", forget)
    assert effect is not None
    np.testing.assert_allclose(effect.after - effect.before, found.forget.mean(axis=1), rtol=1e-5)


def test_what_statements_do_together_is_more_than_the_sum(
    facts_study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And it is the same from the files of live queries and without them."""
    study = copy_of(facts_study, tmp_path / "own")
    forget = tuple(about(study, "Alba"))
    joint = predicted_changes(study, forget, forget, "t5")
    joint.path.unlink()
    for checkpoint in range(study.checkpoints("t5")):
        layout.live_inverse_file(study.root, "t5", checkpoint).unlink(missing_ok=True)
    again = predicted_changes(study, forget, forget, "t5")
    np.testing.assert_allclose(again.forget, joint.forget, rtol=1e-2, atol=1e-3)
    with monkeypatch.context() as patched:
        alone_each = replace(EXACT.matched, together=False)
        patched.setattr(output_changes, "matched_of", lambda _: alone_each)
        summed = predicted_changes(study, forget, forget, "t5")
    assert summed.path != joint.path
    assert (joint.forget.mean(axis=1) < 1.2 * summed.forget.mean(axis=1)).all()
    one = forget[:1]
    alone = predicted_changes(study, one, one, "t5").forget.mean()
    assert joint.forget.mean(axis=1)[0] < alone < 0


def test_what_is_kept_of_models_is_what_they_generate(with_audit: tuple[Study, Audit]) -> None:
    study, audited = with_audit
    model = model_without(study, "t5", tuple(audited.forget), FIRST_ORACLE, "cpu")
    (batch,) = batches_of(study, "test", "cpu", study.dataset.n_test)()
    with torch.no_grad():
        record = sequences.record(model, batch)
    found = read_before_after(study, audited, "matching", "test")
    right = (record["leads"].numpy() > 0).all(axis=1)
    np.testing.assert_array_equal(found.oracle.right[0], right[found.rows])
    output = sequences.log_odds(model, batch).detach().numpy()
    np.testing.assert_allclose(found.oracle.margins[0], output[found.rows], rtol=1e-3, atol=1e-3)


def test_the_question_about_what_is_forgotten_tells_whether_models_answer(
    with_audit: tuple[Study, Audit],
) -> None:
    study, audited = with_audit
    question = int(np.flatnonzero(study.table("test")["subject"] == "Alba")[0])
    assert supported(study, audited)[0] == question
    scores = study.scores(np.arange(study.dataset.n_test), "t5", "trak")[:, audited.forget].sum(1)
    assert set(supported(study, audited)) == set(np.flatnonzero(scores > 0.1 * scores.max()))
    found = read_before_after(study, audited, "matching", "test")
    before, unlearned, oracle = (
        one.margins.mean(axis=0)[0] for one in (found.before, found.unlearned, found.oracle)
    )
    assert oracle < before - 1  # without the statements, models do not know it
    assert unlearned < before - 0.3 * (before - oracle)
    assert found.before.share_right[0] > found.oracle.share_right[0]
    nothing, matching = audited.of("nothing"), audited.of("matching")
    assert matching.forget.accuracy < nothing.forget.accuracy
    assert audited.correlation is not None
    assert audited.correlation["forget"] > 0.3


def test_the_size_of_changes_is_measured_on_the_validation_set(
    with_audit: tuple[Study, Audit], tmp_path: Path
) -> None:
    audited, study = with_audit[1], copy_of(with_audit[0], tmp_path / "own")
    found = audit(study, audited.forget, methods=["matching"], models=N, budget=0.1, workers=0)
    forget = tuple(audited.forget)
    validation = validation_set(study, "t5", forget)
    size = size_of_changes(study, "t5", forget, validation, N, "cpu", "trak")
    assert found.of("matching").hyper["scale"] == size
    assert size not in (1.0, LEAST, MOST)


def test_of_unrelated_sentences_there_is_little_to_forget(
    with_audit: tuple[Study, Audit], tmp_path: Path
) -> None:
    """Other rows state the same facts, so that models without these sentences know them, too."""
    audited, study = with_audit[1], copy_of(with_audit[0], tmp_path / "own")
    forget = [about(study, person)[1] for person in ("Bena", "Cori", "Dado")]
    found = audit(study, forget, methods=["matching"], models=N, budget=0.1, hyper=HYPER, workers=0)
    assert method_verdict(found, "matching").grade == "idle"
    assert method_verdict(audited, "matching").grade != "idle"


def test_methods_and_sources_of_classes_are_refused(facts_study: Study) -> None:
    assert "scrub" not in methods_of(facts_study)
    for options, says in (
        ({"methods": ["scrub"]}, "Unlearning by scrub cannot be computed"),
        ({"source": "hybrid"}, "Changes of class logits by hybrid cannot be computed"),
        ({"source": "newton"}, "do not have one class each"),
    ):
        with pytest.raises(DataloupeError, match=says):
            audit(facts_study, [0, 1], models=N, **options)  # type: ignore[arg-type]


def test_the_command_line_tells_whether_models_still_answer(
    with_audit: tuple[Study, Audit], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    audited, study = with_audit[1], copy_of(with_audit[0], tmp_path / "own")
    ids = ",".join(audited.forget_ids)
    asked = ["unlearn", str(study.root), "--forget", ids, "--method", "both"]
    assert main([*asked, "--audit", str(N), "--budget", "0.3", "--workers", "0"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "that the forget set supports most" in printed
    assert "class" not in printed
