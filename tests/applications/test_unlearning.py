"""Unlearning: methods, their predicted changes, and the audit by retrained models."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.unlearning import direction_rows, measured
from engine import DataloupeError, SpecError, StoreError, Study, store
from engine.applications.unlearning import bank_changes, settings_search, validation
from engine.applications.unlearning import rows as rows_module
from engine.applications.unlearning.audit import audit
from engine.applications.unlearning.audit_record import Audit, read_audits
from engine.applications.unlearning.bank_changes import (
    bank_logits,
    class_scores,
    predict_changes_by_bank,
)
from engine.applications.unlearning.certificate import write_unlearned
from engine.applications.unlearning.judging import agreement, membership
from engine.applications.unlearning.method_verdict import method_verdict
from engine.applications.unlearning.methods import METHODS, Examples, Setup
from engine.applications.unlearning.oracles import oracle_file, oracle_outputs
from engine.applications.unlearning.output_changes import (
    OutputChanges,
    changes_fingerprint,
    predict_output_changes,
    predicted_changes,
    trak_directions,
    units,
)
from engine.applications.unlearning.outputs import AuditedOutputs, Outputs
from engine.applications.unlearning.rows import Rows, own_of, rows_of
from engine.applications.unlearning.settings import GRIDS, Hyper
from engine.applications.unlearning.settings_search import Divergences, choose
from engine.applications.unlearning.sources import best_source
from engine.applications.unlearning.validation import validation_set
from engine.attribution.scores.dense import DenseScores
from engine.attribution.softmax import margins
from engine.build.models import load_checkpoint
from engine.build.retraining import FIRST_ORACLE, model_without
from engine.cli.main import main
from engine.running.jobs.kinds import kind
from engine.store import layout
from engine.study.examples import read_stacked_arrays
from engine.study.models import read_mean_logits
from engine.study.score_matrices import read_score_matrix
from engine.tasks import load_task, margin
from engine.tasks.classification import logits
from engine.training.outputs import read_batch
from engine.training.weights import load_weights
from tests.build.test_build import change
from tests.builders.copies import copy_of

FORGET = tuple(range(3, 60, 4))
N = 4


@pytest.fixture(scope="module")
def with_audit(small_study: Study, tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Audit]:
    """A study with an audit: two methods, judged with few models."""
    study = copy_of(small_study, tmp_path_factory.mktemp("audited") / "study")
    methods = ["matching", "ascent"]
    return study, audit(study, FORGET, methods=methods, models=N, budget=0.2, workers=0)


@pytest.fixture
def study(with_audit: tuple[Study, Audit], tmp_path: Path) -> Study:
    """A copy of it."""
    return copy_of(with_audit[0], tmp_path / "study")


@pytest.fixture(scope="module")
def audited(with_audit: tuple[Study, Audit]) -> Audit:
    return with_audit[1]


# --- what is predicted ----------------------------------------------------------------------------


def test_predicted_margins_are_the_sums_of_scores(study: Study) -> None:
    task = load_task("image-classification")
    found = predict_output_changes(
        study,
        "mlp",
        trak_directions(study, "mlp", FORGET, "cpu"),
        {"test": read_stacked_arrays(study, "test")},
        lambda model, batch: task.model_output(model, batch)[:, None],
    )["test"][:, 0]
    scores = read_score_matrix(study, "mlp", "trak").rows(np.arange(60))[:, list(FORGET)]
    wanted = -(scores * units(study, "mlp")[list(FORGET)]).sum(axis=1)
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4 * np.abs(wanted).max())


def test_changes_are_predicted_for_every_class_and_kept(study: Study) -> None:
    found = predicted_changes(study, FORGET, FORGET, "mlp")
    assert found.forget.shape == (len(FORGET), 10)
    assert found.retain.shape == (len(rows_of(study, FORGET).learned), 10)
    assert found.test.shape == (60, 10)
    labels = own_of(study, np.array(FORGET))
    own = found.forget[np.arange(len(FORGET)), labels]
    assert own.mean() < found.forget.mean()  # what is forgotten is less sure of its label
    before = found.path.stat().st_mtime_ns
    predicted_changes(study, FORGET, FORGET, "mlp")
    assert found.path.stat().st_mtime_ns == before


def test_margins_without_torch_are_those_of_the_task() -> None:
    drawn, labels = np.random.default_rng(0).normal(size=(3, 8, 5)) * 9, np.arange(8) % 5
    wanted = [margin.margin(torch.tensor(one), torch.tensor(labels)).numpy() for one in drawn]
    np.testing.assert_allclose(margins(drawn, labels), wanted)


@pytest.fixture
def with_logits(study: Study) -> Study:
    """The study, with a bank that keeps logits."""
    own = change(study.root, "masks = 15", "masks = 15\ntest_seeds = 1\nlogits = true")
    own.build(workers=0, rebuild="bank")
    return own


def test_scores_of_class_logits_sum_to_what_the_derivative_says(study: Study) -> None:
    rows = np.array([2, 5, 11])
    scores = class_scores(study, "mlp", "test", rows, "cpu")
    assert scores.shape == (30, 300)
    unit = units(study, "mlp")[list(FORGET)]
    wanted = -(scores.numpy()[:, list(FORGET)] * unit).sum(axis=1).reshape(3, 10)
    found = predicted_changes(study, FORGET, FORGET, "mlp").test[rows]
    np.testing.assert_allclose(found, wanted, rtol=2e-3, atol=1e-3 * np.abs(wanted).max())


def test_a_bank_with_logits_predicts_them_too(
    with_logits: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, ones = np.array([0, 7]), units(with_logits, "mlp")
    logits = bank_logits(with_logits, "mlp", "test", rows)
    bank = with_logits.bank("mlp")
    labels = own_of(with_logits)[rows]
    np.testing.assert_allclose(margins(logits, labels), bank.test[:, rows], rtol=1e-3, atol=1e-3)
    for source in ("datamodel", "hybrid"):
        parts = [
            predict_changes_by_bank(with_logits, "mlp", source, part, "test", rows, ones)
            for part in (FORGET[:5], FORGET[5:], FORGET)
        ]
        # Linear: what two sets do together is the sum of what each does.
        np.testing.assert_allclose(parts[0] + parts[1], parts[2], rtol=1e-3, atol=1e-4)
    found = predicted_changes(with_logits, FORGET, FORGET, "mlp", source="hybrid")
    by_trak = predicted_changes(with_logits, FORGET, FORGET, "mlp")
    np.testing.assert_array_equal(found.test, by_trak.test)
    assert np.abs(found.forget - by_trak.forget).max() > 1e-3
    by_newton = predicted_changes(with_logits, FORGET, FORGET, "mlp", source="newton")
    combined = predicted_changes(with_logits, FORGET, FORGET, "mlp", source="combined")
    mean = (found.forget + by_newton.forget) / 2
    np.testing.assert_allclose(combined.forget, mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(combined.retain, by_newton.retain)
    assert best_source(with_logits, "mlp") == "hybrid"
    # However many examples are scored together.
    monkeypatch.setattr(bank_changes, "_SCORES", 0)
    monkeypatch.setattr(bank_changes, "_BLOCK", 7)
    again = predict_changes_by_bank(
        with_logits, "mlp", "hybrid", FORGET, "train", np.array(FORGET), ones
    )
    np.testing.assert_allclose(found.forget, again, rtol=1e-3, atol=1e-4)


def test_a_bank_without_logits_says_what_to_set(study: Study) -> None:
    with pytest.raises(StoreError, match="logits = true"):
        predicted_changes(study, FORGET, FORGET, "mlp", source="hybrid")
    with pytest.raises(DataloupeError, match="by 'magic'"):
        predicted_changes(study, FORGET, FORGET, "mlp", source="magic")


def test_a_newton_step_predicts_what_retraining_does(study: Study, audited: Audit) -> None:
    assert best_source(study, "mlp") == audited.source == "trak"
    retrained = oracle_outputs(study, "mlp", FORGET, FORGET, N)
    rows = np.array(FORGET)
    labels, before = own_of(study, rows), read_mean_logits(study, "train", "mlp", rows)
    after = retrained.of(rows).matched.mean(axis=0)
    actual = margins(after, labels) - margins(before, labels)
    change = predicted_changes(study, FORGET, FORGET, "mlp", source="newton").forget
    predicted = margins(before + change, labels) - margins(before, labels)
    assert np.corrcoef(predicted, actual)[0, 1] > 0.5, (predicted, actual)


def test_a_newton_step_needs_rates_of_sgd(study: Study) -> None:
    with_adamw = change(study.root, "batch_size = 64", 'batch_size = 64\noptimizer = "adamw"')
    with pytest.raises(SpecError, match="trained by SGD, and mlp is trained by adamw"):
        predicted_changes(with_adamw, FORGET, FORGET, "mlp", source="newton")


# --- methods --------------------------------------------------------------------------------------


def examples(study: Study, rows: np.ndarray, **goals: torch.Tensor) -> Examples:
    task, arrays = load_task("image-classification"), read_stacked_arrays(study, "train")
    return Examples(read_batch(task, arrays, rows, study.dataset.encoding, "cpu"), **goals)


@pytest.mark.parametrize("method", list(METHODS))
def test_every_method_keeps_to_the_budget_and_its_seed(study: Study, method: str) -> None:
    task, rows = load_task("image-classification"), rows_of(study, FORGET)
    goals = [
        {"change": torch.eye(10)[np.arange(len(part)) % 10]} for part in (rows.forget, rows.learned)
    ]
    parts = [
        examples(study, part, **goal)
        for part, goal in zip((rows.forget, rows.learned), goals, strict=True)
    ]
    models = [load_checkpoint(study, "mlp", 0, "cpu") for _ in range(3)]
    costs = [
        METHODS[method](Setup(task, model, *parts, 300, seed, Hyper()))
        for model, seed in zip(models, (1, 1, 2), strict=True)
    ]
    weights = [torch.cat([p.flatten() for p in model.parameters()]) for model in models]
    assert torch.equal(weights[0], weights[1])
    if method == "nothing":
        assert costs[0].share(1000) == 0
        assert torch.equal(weights[0], weights[2])
        return
    assert 0.7 < costs[0].share(300) <= 1
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize("budget", [40, 300, 2_000])
def test_matching_passes_forward_only_what_it_visits(study: Study, budget: int) -> None:
    """A small budget is not spent on targets of examples that no step looks at."""
    task, rows = load_task("image-classification"), rows_of(study, FORGET)
    parts = [
        examples(study, part, change=torch.zeros(len(part), 10))
        for part in (rows.forget, rows.learned)
    ]
    hyper = Hyper(batch=16, forget_share=0.25)
    model = load_checkpoint(study, "mlp", 0, "cpu")
    cost = METHODS["matching"](Setup(task, model, *parts, budget, 0, hyper))
    steps = cost.gradients // 16
    assert cost.forwards == sum(
        min(len(part), steps * size) for part, size in zip(parts, (4, 12), strict=True)
    )
    # One more step would be too much.
    assert budget - 16 - 16 / 3 - 1 < cost.gradients + cost.forwards / 3 <= budget


def test_matching_reaches_goals_that_can_be_reached(study: Study) -> None:
    """Another checkpoint's logits, given as changes, are come near to by enough steps."""
    task, rows = load_task("image-classification"), rows_of(study, FORGET)
    model, other = (load_checkpoint(study, "mlp", number, "cpu") for number in (0, 1))
    parts, away = [], []
    for part in (rows.forget, rows.learned):
        batch = examples(study, part).batch
        with torch.no_grad():
            change = logits(other, batch) - logits(model, batch)
        change -= change.mean(dim=1, keepdim=True)
        parts.append(Examples(batch, change=change))
        away.append(change.square().mean())
    goal = [logits(model, part.batch).detach() + part.change for part in parts]
    METHODS["matching"](Setup(task, model, *parts, 20_000, 0, Hyper(learning_rate=0.03)))
    for part, wanted, was in zip(parts, goal, away, strict=True):
        with torch.no_grad():
            off = logits(model, part.batch) - wanted
        off -= off.mean(dim=1, keepdim=True)
        assert off.square().mean() < 0.2 * was


# --- the audit ------------------------------------------------------------------------------------


def test_rows_that_choose_are_not_those_that_are_judged(study: Study) -> None:
    rows = rows_of(study, FORGET)
    assert rows.forget.tolist() == list(FORGET)
    validation = validation_set(study, "mlp", FORGET)
    assert len(set(validation)) == len(FORGET)
    for chosen in (validation, rows.tuning):
        assert not np.isin(chosen, rows.audited).any()
        assert not np.isin(chosen, rows.learned).any()
    for part in (rows.learned, rows.audited, validation, rows.tuning):
        assert len(part)
        assert not np.isin(part, FORGET).any()


@pytest.mark.parametrize("forget", [range(0, 60, 2), range(1, 61, 2)])
def test_what_chooses_is_like_what_is_forgotten(
    study: Study, monkeypatch: pytest.MonkeyPatch, forget: range
) -> None:
    """Even rows pull one way and odd ones another."""
    rng = np.random.default_rng(0)
    ways = rng.standard_normal((60, 2))
    scores = ways[:, np.arange(300) % 2] + rng.normal(0, 0.5, (60, 300))
    scores *= rng.lognormal(size=300)  # how strong an example is does not matter
    dense = DenseScores([scores.astype(np.float32)])
    monkeypatch.setattr(validation, "read_score_matrix", lambda *_: dense)
    found = validation_set(Study.open(study.root), "mlp", tuple(forget))
    assert len(found) == len(forget)
    assert {row % 2 for row in found} == {forget.start}


def test_what_chooses_leaves_every_class_an_example(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A class of three, which are all that is like what is to be forgotten: one of them stays."""
    forget = tuple(range(0, 300, 2))
    lone = rows_of(study, forget).others[:3]
    labels = np.ones(300, np.int64)
    labels[lone] = 0
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((60, 300))
    scores[:, [*forget, *lone]] = rng.standard_normal((60, 1))
    dense = DenseScores([scores.astype(np.float32)])
    monkeypatch.setattr(validation, "read_score_matrix", lambda *_: dense)
    monkeypatch.setattr(validation, "own_of", lambda study, rows: labels[rows])
    found = validation_set(Study.open(study.root), "mlp", forget)
    assert len(found) == 150 // 4
    assert np.isin(lone, found).sum() == 2


def test_predicted_changes_are_taken_as_they_are_where_that_is_no_worse() -> None:
    rng = np.random.default_rng(0)
    base, checked = rng.gamma(2.0, 0.5, 40), rng.gamma(2.0, 0.1, 100)

    def trial(scale: float, worse: float, rate: float = 0.01) -> tuple[Hyper, Divergences]:
        own = base + worse + rng.normal(0, 0.3, 40)
        return Hyper(rate, scale=scale), Divergences(own, checked)

    near = [trial(0.7, 0.0), trial(1.0, 0.01), trial(1.4, 0.01)]
    assert choose(near).scale == 1.0
    far = [trial(0.7, 0.0), trial(1.0, 1.0), trial(1.4, 0.01)]
    assert choose(far).scale in (0.7, 1.4)
    rates = [trial(1.0, 0.3, 0.001), trial(1.0, 0.0, 0.01), trial(1.0, 0.6, 0.1)]
    assert choose(rates).learning_rate == min(rates, key=lambda one: one[1].score)[0].learning_rate


def test_predictions_for_other_rows_are_not_reused(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = changes_fingerprint(study, FORGET, FORGET, "mlp")
    monkeypatch.setattr(rows_module, "MOST_LEARNED", 20)
    rows_module._rows_of.cache_clear()
    try:
        assert changes_fingerprint(Study.open(study.root), FORGET, FORGET, "mlp") != before
    finally:
        rows_module._rows_of.cache_clear()


def test_oracles_are_the_recipe_without_the_forget_set(study: Study, audited: Audit) -> None:
    model = model_without(study, "mlp", FORGET, FIRST_ORACLE + 1, "cpu")
    rows = rows_of(study, FORGET)
    kept = store.read_tensors(oracle_file(study, "mlp", FORGET, 1))["train_logits"]
    with torch.no_grad():
        wanted = logits(model, examples(study, rows.all).batch)
    np.testing.assert_allclose(kept, wanted, rtol=1e-4, atol=1e-4)


def test_the_audit_judges_each_method_beside_the_floor(audited: Audit) -> None:
    assert [one.method for one in audited.methods] == ["nothing", "matching", "ascent"]
    for one in audited.methods:
        for part in ("forget", "retain", "test"):
            judged = getattr(one, part)
            assert 0 <= judged.klom.mean.mean <= judged.klom.p95.mean <= audited.ceiling
            assert judged.klom.models == N
            assert 0 <= judged.accuracy <= 1
    nothing, matching = audited.of("nothing"), audited.of("matching")
    assert nothing.cost_share == nothing.once_share == 0
    assert 0.1 < matching.cost_share <= 0.2
    assert matching.once_share > 0
    assert nothing.forget.accuracy >= nothing.forget.oracle_accuracy
    assert audited.correlation is not None
    assert set(audited.correlation) == {"forget", "retain", "test"}
    assert audited.floor["test"].models == N // 2


@pytest.mark.parametrize(
    ("part", "factor", "shift", "correlation", "error"),
    [
        ("forget", 1.0, 0.0, 1.0, 0.0),
        ("retain", -1.0, 0.0, -1.0, None),
        ("test", 2.0, 7.0, 1.0, None),  # a shift of all classes changes no prediction
        ("test", 0.0, 0.0, 0.0, None),
    ],
)
def test_predicted_changes_agree_with_actual_ones(
    part: str, factor: float, shift: float, correlation: float, error: float | None
) -> None:
    generator = np.random.default_rng(5)
    none = np.arange(0)
    rows = Rows(np.arange(3), np.arange(3, 8), none, none, none)
    train, test = generator.normal(size=(2, 8, 4)), generator.normal(size=(2, 6, 4))
    change, test_change = generator.normal(size=(8, 4)), generator.normal(size=(6, 4))

    def outputs(train: np.ndarray, test: np.ndarray) -> AuditedOutputs:
        parts = (Outputs(one, one, np.zeros(one.shape[1], np.int64)) for one in (train, test))
        return AuditedOutputs(np.arange(8), *parts)

    before = outputs(train, test)
    noise = np.array([1.0, -1.0])[:, None, None]  # cancels in the mean over models
    after = outputs(train + change + noise, test + test_change + noise)
    predicted = OutputChanges(
        factor * change[:3] + shift, factor * change[3:] + shift, factor * test_change + shift,
        Path(),
    )  # fmt: skip
    found, errors = agreement(before, after, predicted, rows, relative=True)
    np.testing.assert_allclose(found[part], correlation, atol=1e-12)
    centered = test_change - test_change.mean(axis=1, keepdims=True)
    size = np.sqrt(np.mean(((factor - 1) * centered) ** 2))
    if part == "test":
        np.testing.assert_allclose(errors[part], size)
    if error is not None:
        np.testing.assert_allclose(errors[part], error, atol=1e-12)


def test_an_audit_is_kept_and_asked_again_costs_nothing(study: Study, audited: Audit) -> None:
    assert Audit.from_dict(json.loads(json.dumps(audited.to_dict()))) == audited
    folder = layout.unlearning_folder(study.root, "mlp")
    files = {
        path: path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.is_file() and path.parent.name != "audits"
    }
    again = audit(study, FORGET, methods=["matching", "ascent"], models=N, budget=0.2, workers=0)
    assert again.id == audited.id
    assert again.of("matching") == audited.of("matching")
    assert {path: path.stat().st_mtime_ns for path in files} == files
    assert audited.id in [one.id for one in read_audits(study)]


def test_an_interrupted_audit_repeats_no_oracle(study: Study) -> None:
    forget = (1, 2)

    class Stop(Exception):
        pass

    def stop(done: int, total: int, what: str) -> None:
        if what == "oracles" and done == 2:
            raise Stop

    with pytest.raises(Stop):
        audit(study, forget, models=N, budget=0.1, workers=0, report=stop)
    made = [oracle_file(study, "mlp", forget, number) for number in range(N)]
    there = {path: path.stat().st_mtime_ns for path in made if path.exists()}
    assert len(there) == 2
    request = kind("unlearn").checked(study, {"forget": ["train-1", 2, "2"], "models": N})
    assert request["forget"] == [1, 2]
    result = kind("unlearn").work(study, {**request, "workers": 0, "budget": 0.1}, stop_never)
    assert result["forget"] == 2
    assert {path: path.stat().st_mtime_ns for path in there} == there
    assert all(path.exists() for path in made)


def stop_never(done: int, total: int, what: str) -> None:
    assert 0 <= done <= total


def test_membership_is_twice_the_auc_less_one() -> None:
    assert membership(np.array([[2.0, 3.0]]), np.array([[0.0, 1.0]])) == 1
    assert membership(np.array([[0.0, 1.0]]), np.array([[2.0, 3.0]])) == -1
    assert membership(np.ones((2, 3)), np.ones((2, 5))) == 0


# --- the model and the command line ---------------------------------------------------------------


def test_the_command_line_writes_a_model_and_its_certificate(
    study: Study, audited: Audit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ids, out = tmp_path / "ids.csv", tmp_path / "model.safetensors"
    ids.write_text("id\n" + "\n".join(f"train-{row}" for row in FORGET))
    words = ["unlearn", str(study.root), "--forget", str(ids), "--method", "ascent"]
    words += ["--audit", str(N), "--budget", "0.2", "--workers", "0", "--out", str(out)]
    assert main([*words, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["forget"] == list(FORGET)
    certificate = json.loads(out.with_suffix(".json").read_text())
    assert [one["row"] for one in certificate["forgotten"]] == list(FORGET)
    assert certificate["model_sha256"] == store.file_digest(out)
    assert certificate["audit"]["id"] == result["id"]
    model = load_checkpoint(study, "mlp", 0, "cpu")
    load_weights(out, model)  # fits the architecture
    assert main(words) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "floor (oracles)" in shown
    assert method_verdict(audited, "ascent").summary.split(":")[0] in shown
    assert "A membership test tells them from retrained models" in shown or "Little to" in shown


@pytest.mark.parametrize(
    ("forget", "says"),
    [
        ("", "empty"),
        ("train-1,nobody", "nobody"),
        (",".join(map(str, range(300))), "all 300"),
    ],
)
def test_bad_forget_sets_are_refused_in_one_line(
    study: Study, forget: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["unlearn", str(study.root), "--forget", forget, "--audit", "4"]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


def test_a_whole_class_cannot_be_forgotten(study: Study) -> None:
    labels = study.table("train")["label"].to_numpy()
    with pytest.raises(DataloupeError, match="every training example of class"):
        audit(study, np.flatnonzero(labels == labels[0]).tolist(), models=N)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"methods": ["magic"]}, "'magic'"),
        ({"methods": []}, "Name a method"),
        ({"models": 3}, "4 to 1,000"),
        ({"budget": 0.0}, "budget"),
        ({"models": N, "algorithm": "cnn"}, "cnn"),
    ],
)
def test_bad_questions_are_refused(study: Study, options: dict, says: str) -> None:
    with pytest.raises(DataloupeError, match=says):
        audit(study, FORGET, **options)
    with pytest.raises(DataloupeError, match=says):
        kind("unlearn").checked(study, {"forget": list(FORGET), **options})


def test_without_a_recipe_a_model_can_be_made_but_not_audited(
    small_study: Study, tmp_path: Path
) -> None:
    root = tmp_path / "study"
    shutil.copytree(small_study.root, root)
    weights = layout.checkpoint_file(small_study.root, "mlp", 0)
    shutil.copy(weights, root / "mine.safetensors")
    recipe = "epochs = 4\nlearning_rate = 0.05\nbatch_size = 64\ncheckpoints = 2"
    own = change(root, recipe, 'weights = ["mine.safetensors"]')
    own = change(root, "[subset_runs]\nmasks = 15", "")
    shutil.rmtree(root / "algorithms")
    own.build(workers=0)
    with pytest.raises(SpecError, match="only `weights`"):
        audit(own, FORGET, models=N)
    assert predicted_changes(own, FORGET, FORGET, "mlp").test.shape == (60, 10)
    found = write_unlearned(own, FORGET, tmp_path / "model.safetensors")
    assert found["audit"] is None
    assert (tmp_path / "model.json").exists()
    with pytest.raises(DataloupeError, match="needs oracles"):
        write_unlearned(own, FORGET, tmp_path / "model.safetensors", method="oracle")
    with pytest.raises(DataloupeError, match="safetensors"):
        write_unlearned(own, FORGET, tmp_path / "model.pt")


def test_the_benchmark_has_its_figures(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    few = {method: grid[:2] for method, grid in GRIDS.items()}  # settings to try
    monkeypatch.setattr(settings_search, "GRIDS", few)
    found = measured(study, N, (5,), workers=0)
    assert set(found["matching_vs_floor_forget"]) == {"random 5", "direction 5"}
    assert 0 < found["matching_cost_share"] < 0.1  # its forward passes alone are more than 5 %
    assert set(found["table"]["random 5"]) == {"floor", *GRIDS}
    json.dumps(found)
    chosen = direction_rows(study)[:20]
    strongest = read_score_matrix(study).rows(np.arange(60))[:, chosen]
    assert np.abs(strongest).mean() > np.abs(read_score_matrix(study).rows(np.arange(60))).mean()


def test_every_method_has_something_to_try() -> None:
    assert set(GRIDS) == set(METHODS)
