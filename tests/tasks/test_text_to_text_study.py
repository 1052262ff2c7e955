"""A study of source and target texts: from its spec to scores, verdicts and verbs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from engine import Study, store
from engine.applications.live import Query, StoredQuery, explain_stored, output_of, run_query
from engine.applications.token_shares import token_shares
from engine.attribution.trak.linear_system import example_weights, temper
from engine.build.batches import batches_of, stored_out_to_loss
from engine.build.models import load_checkpoint
from engine.cli.main import main
from engine.data.tokens import token_spans
from engine.store import layout
from engine.store.errors import DataloupeError, UnknownName
from engine.study.output_names import resolve_output
from engine.study.reader import StudyReader
from engine.study.score_matrices import stored_solver
from engine.tasks import sequences
from tests.builders.copies import copy_of
from tests.builders.exact_gradients import autograd_rows


def test_predictions_are_texts(facts_study: Study) -> None:
    table, examples = facts_study.predictions("test"), facts_study.table("test")
    assert list(table) == ["predicted", "correct", "log_likelihood", "output"]
    np.testing.assert_array_equal(table["correct"], table["predicted"] == examples["target"])
    assert table["correct"].mean() > 0.6
    assert facts_study.dataset.outcomes == "exact"
    assert list(examples["text"][:1]) == [f"{examples['source'][0]} → {examples['target'][0]}"]


def dense_scores(study: Study, output: sequences.ModelOutput | None, row: int) -> np.ndarray:
    """Scores by the definition, in float64: Q φᵀ (ΦᵀWΦ + λI)⁻¹ ∇f with Q φ = −∇loss."""
    solver, parts, weights = stored_solver(study, "t5"), [], []
    value = sequences.log_odds if output is None else output.value
    for checkpoint in range(2):
        model = load_checkpoint(study, "t5", checkpoint, "cpu")

        def gradients(function, batch, model=model):  # type: ignore[no-untyped-def]
            rows = autograd_rows(model, function, batch).values()
            return torch.cat([one.flatten(1) for one in rows], 1).double()

        (train,) = batches_of(study, "train", "cpu", study.dataset.n_train)()
        (test,) = batches_of(study, "test", "cpu", 1, row, row + 1)()
        q = torch.from_numpy(stored_out_to_loss(study, "t5", checkpoint))
        of_loss = gradients(lambda m, b: sequences.loss(m, b, 0.0), train)
        phi = -of_loss / q.double()[:, None]
        w = example_weights(q, solver)
        root = torch.ones(len(phi)).double() if w is None else w.double().sqrt()
        kernel = root[:, None] * (phi @ phi.T) * root
        kernel += solver.damping * kernel.diagonal().mean() * torch.eye(len(kernel))
        solved = torch.linalg.solve(kernel, root * (phi @ gradients(value, test)[0])) / root
        parts.append(solved)
        weights.append(q)
    factor = temper(torch.stack(weights).mean(0), solver).double()
    scores = (factor * torch.stack(parts).mean(0)).numpy()
    threshold = solver.soft_threshold * scores.std()
    return scores - scores.clip(-threshold, threshold)


def test_scores_are_steps_on_the_loss(facts_study: Study) -> None:
    assert stored_solver(facts_study, "t5").kind == "dual-exact"
    for row in (0, 7):
        wanted = dense_scores(facts_study, None, row)
        found = facts_study.scores([row], "t5", "trak")[0]
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-3 * np.abs(wanted).max())


def test_statements_of_the_fact_are_among_the_strongest(facts_study: Study) -> None:
    """Far more than their share, which is 4 of 60."""
    train, test = facts_study.table("train"), facts_study.table("test")
    scores = facts_study.scores(np.arange(len(test)), "t5", "trak")
    ranks = (-scores).argsort(axis=1).argsort(axis=1)
    own = test["subject"].to_numpy()[:, None] == train["subject"].to_numpy()[None]
    first = np.where(own, ranks, len(train)).min(axis=1)
    assert (first < 5).mean() > 0.7


def test_live_scores_of_the_default_output_are_the_stored_ones(facts_study: Study) -> None:
    every = facts_study.dataset.n_train
    found = explain_stored(StoredQuery(facts_study.root, "t5", "test", 3, None, every))
    scores = np.zeros(every)
    scores[found.support], scores[found.oppose] = found.support_scores, found.oppose_scores
    wanted = facts_study.scores([3], "t5", "trak")[0]
    np.testing.assert_allclose(scores, wanted, atol=1e-3 * np.abs(wanted).max())
    assert found.value == pytest.approx(facts_study.predictions("test")["output"][3], rel=1e-4)


def test_records_are_those_of_single_models(facts_study: Study) -> None:
    path = layout.outputs_file(facts_study.root, "t5", 1, "test")
    kept = store.read_tensors(path)
    model = load_checkpoint(facts_study, "t5", 1, "cpu")
    (batch,) = batches_of(facts_study, "test", "cpu", 16)()
    with torch.no_grad():
        record = sequences.record(model, batch)
    assert kept["instead"].dtype == np.int64
    for name, wanted in record.items():
        np.testing.assert_allclose(kept[name], wanted, atol=1e-4)


def test_removals_are_verified_by_what_is_generated(facts_study: Study, tmp_path: Path) -> None:
    own = copy_of(facts_study, tmp_path / "own")
    supporters = [one.id for one in own.explain("test-3", k=5).supporting]
    (found,) = own.verify(supporters, tests=["test-3"], seeds=1, workers=0).outcomes
    right = bool(own.predictions("test")["correct"][3])
    assert (found.before == "the expected text") == right
    (answer,) = found.answers_without
    assert found.flips is not None
    assert found.flips.mean == float((answer == "the expected text") != right)


VERBS = {
    "explain": ["explain", "{root}", "--test", "test-3"],
    "whatif": ["whatif", "{root}", "--remove", "train-1,train-2"],
    "evaluate": ["evaluate", "{root}", "--by-group"],
    "methods": ["methods", "{root}"],
    "doctor": ["doctor", "{root}"],
}


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_works(
    verb: str, facts_study: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([part.format(root=facts_study.root) for part in VERBS[verb]]) == 0
    printed = capsys.readouterr().out
    assert "class" not in printed
    assert "margin" not in printed


# --- outputs that a person chooses, and tokens ----------------------------------------------------


def live_scores(study: Study, row: int, output: str) -> np.ndarray:
    every = study.dataset.n_train
    found = explain_stored(StoredQuery(study.root, "t5", "test", row, output, every))
    scores = np.zeros(every)
    scores[found.support], scores[found.oppose] = found.support_scores, found.oppose_scores
    return scores


@pytest.mark.parametrize("name", ["log-likelihood", "tokens:1", "tokens:1,2", "rather-than:Lima"])
def test_chosen_outputs_get_the_scores_of_their_definition(facts_study: Study, name: str) -> None:
    output = sequences.LOG_LIKELIHOOD
    resolved = resolve_output(facts_study, name)
    if resolved.classes:
        output = sequences.make_output(*output_of(facts_study, resolved))
    wanted = dense_scores(facts_study, output, 2)
    found = live_scores(facts_study, 2, name)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-3 * np.abs(wanted).max())
    stored = facts_study.scores([2], "t5", "trak")[0]
    assert not np.allclose(found, stored, atol=1e-2 * np.abs(stored).max())


def test_rather_than_is_the_difference_of_two_likelihoods(facts_study: Study) -> None:
    from engine.tasks.text_to_text import TASK

    named = resolve_output(facts_study, 'rather-than:"Lima"')
    assert named.title == "the log-likelihood of the target minus that of “Lima”"
    model = load_checkpoint(facts_study, "t5", 0, "cpu")
    (batch,) = batches_of(facts_study, "test", "cpu", 16)()
    value = sequences.make_output(*output_of(facts_study, named)).value
    targets = facts_study.table("test")["target"]
    with torch.no_grad():
        found, own = value(model, batch), sequences.log_likelihood(model, batch)
        lima = own[int(np.flatnonzero(targets == "Lima")[0])]
        assert TASK.make_output is sequences.make_output
        assert found[targets.to_numpy() == "Lima"].abs().max() < 1e-5
        assert (found[targets.to_numpy() != "Lima"] != 0).all()
        assert lima < 0


def test_tokens_that_are_not_there_are_refused(facts_study: Study) -> None:
    with pytest.raises(DataloupeError, match=r"no target token 30: the target has \d+ tokens"):
        live_scores(facts_study, 2, "tokens:30")
    for name in ("tokens:0", "tokens:a", "tokens:", "rather-than:"):
        with pytest.raises(UnknownName, match="tokens:1,2, rather-than:TEXT"):
            resolve_output(facts_study, name)


@pytest.mark.parametrize("name", [None, "tokens:1", "rather-than:Lima"])
def test_shares_of_source_and_target_tokens_sum_to_the_score(
    facts_study: Study, name: str | None
) -> None:
    wanted = live_scores(facts_study, 2, name or "log-odds")
    rows = [int(np.abs(wanted).argmax()), 5]
    reader = StudyReader.open(facts_study.root)
    close = 1e-3 * np.abs(wanted).max()
    encoding, table = facts_study.dataset.encoding, facts_study.table("train")
    for row in rows:
        found = token_shares(reader, "t5", 2, [row], name)
        np.testing.assert_allclose(found.scores, wanted[[row]], rtol=0, atol=close)
        for shares, whole in ((found.train, found.train_whole), (found.test, found.test_whole)):
            np.testing.assert_allclose(shares[0].sum() + whole, wanted[[row]], rtol=0, atol=close)
        spans = token_spans(table["text"][row], encoding)
        assert len(found.train[0]) == len(spans)
        text = table["text"][row]
        read = {place for start, stop in spans for place in range(start, stop)}
        unread = "".join(letter for place, letter in enumerate(text) if place not in read)
        assert unread.replace(" ", "") == "→"
        if row == rows[0]:
            assert (found.train[0] != 0).all(), "source and target take part"


def test_replay_agrees_with_finite_differences(facts_study: Study) -> None:
    """Of the default output by the weights of training examples, through all steps of a training.

    With SGD: Adam's first steps follow the signs of gradients, which have no derivative.
    """
    from engine.attribution.replay.query import adjoints_of
    from engine.attribution.replay.reverse import walk_back
    from engine.attribution.replay.states import Recording
    from engine.build.models import initial_model
    from engine.build.tasks import task_of
    from engine.study.examples import read_stacked_arrays
    from engine.training.stepping import Training

    recipe = {"optimizer": "sgd", "learning_rate": 0.05, "epochs": 3}
    spec = facts_study.spec.algorithms["t5"].model_copy(update=recipe)
    task, arrays = task_of(facts_study), read_stacked_arrays(facts_study, "train")
    (batch,) = batches_of(facts_study, "test", "cpu", 1, 3, 4)()

    def training(weights: np.ndarray | None = None) -> Training:
        model = initial_model(facts_study, spec, 0)
        encoding = facts_study.dataset.encoding
        return Training(task, model, arrays, encoding, spec, 0, "cpu", weights=weights)

    def value(weights: np.ndarray) -> float:
        found = training(weights.astype(np.float32))
        with found.running():
            while found.step < found.n_steps:
                found.advance()
        with torch.no_grad():
            return float(sequences.log_odds(found.model.eval(), batch)[0])

    replayed = training()
    with replayed.running():
        recording = Recording(replayed, 2**28)
        recording.run()
        recording.to_last()
        adjoints, _ = adjoints_of(replayed, sequences.log_odds, batch)
        found = walk_back(recording, adjoints)[0]
    direction = np.random.default_rng(0).normal(size=len(found))
    both = [value(1 + sign * 1e-2 * direction) for sign in (1, -1)]
    wanted = float(found @ direction)
    assert abs(wanted) > 0.01
    assert (both[0] - both[1]) / 2e-2 == pytest.approx(wanted, rel=0.02)


# --- a source of one's own ------------------------------------------------------------------------


def test_models_write_the_target_of_a_source_alone(facts_study: Study) -> None:
    right = facts_study.predictions("test")["correct"].to_numpy()
    source, target = facts_study.table("test").loc[right, ["source", "target"]].iloc[0]
    asked = Query(facts_study.root, "t5", {"text": source})
    alone = run_query(asked)
    whole = run_query(replace(asked, given={"text": f"{source} => {target}"}))
    assert alone.text == f"{source} → {target}"
    assert alone.notes == ["The target is what the models generate.", *whole.notes]
    assert alone.predicted == whole.predicted == target
    np.testing.assert_array_equal(alone.support, whole.support)
    np.testing.assert_allclose(alone.support_scores, whole.support_scores, rtol=1e-5)
