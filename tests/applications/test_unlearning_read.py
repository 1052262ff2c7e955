"""What is read of unlearning: predicted effects, audits, their cost, certificates."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine import DataloupeError, StoreError, Study, store
from engine.applications.unlearning.audit import audit
from engine.applications.unlearning.audit_record import PARTS, Audit, MethodAudit, read_audits
from engine.applications.unlearning.before_after import probability, read_before_after
from engine.applications.unlearning.certificate import certified_file
from engine.applications.unlearning.cost import audit_cost
from engine.applications.unlearning.judging import membership
from engine.applications.unlearning.klom import Klom
from engine.applications.unlearning.method_verdict import best, method_verdict
from engine.applications.unlearning.oracles import oracle_file
from engine.applications.unlearning.output_changes import predicted_changes
from engine.applications.unlearning.outputs import read_outputs
from engine.applications.unlearning.predicted_effect import read_predicted_margins
from engine.applications.unlearning.rows import own_of, rows_of
from engine.applications.unlearning.settings import GRIDS, TITLES, UNCHANGED
from engine.attribution.evaluation.quality import Measured
from engine.attribution.softmax import margins
from engine.running.jobs.kinds import kind
from engine.store import layout
from tests.builders.copies import copy_of

FORGET = tuple(range(3, 60, 4))
N = 4


def quiet(done: int, total: int, what: str) -> None:
    assert 0 <= done <= total


@pytest.fixture(scope="module")
def with_audit(small_study: Study, tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Audit]:
    """A study with an audit: two methods, judged with few models."""
    study = copy_of(small_study, tmp_path_factory.mktemp("audited") / "study")
    methods = ["ascent", "finetune"]
    return study, audit(study, FORGET, methods=methods, models=N, budget=0.2, workers=0)


@pytest.fixture
def study(with_audit: tuple[Study, Audit], tmp_path: Path) -> Study:
    """A copy of it."""
    return copy_of(with_audit[0], tmp_path / "study")


@pytest.fixture(scope="module")
def audited(with_audit: tuple[Study, Audit]) -> Audit:
    return with_audit[1]


# --- what is predicted ----------------------------------------------------------------------------


def test_margins_are_predicted_by_a_job_and_read_without_it(study: Study) -> None:
    assert read_predicted_margins(study, "mlp", FORGET) is None
    request = kind("predict").checked(study, {"forget": ["train-3", *FORGET]})
    assert request["forget"] == list(FORGET)
    kind("predict").work(study, request, quiet)
    found = read_predicted_margins(study, "mlp", FORGET)
    assert found is not None
    assert found.calibrated
    table = study.predictions("train", "mlp")["output"].to_numpy()
    np.testing.assert_allclose(found.before, table[list(FORGET)], rtol=1e-4, atol=1e-4)
    change = predicted_changes(study, FORGET, FORGET, "mlp").forget
    files = [layout.outputs_file(study.root, "mlp", number, "train") for number in range(2)]
    logits = np.stack([store.read_tensors(file)["logits"][list(FORGET)] for file in files])
    expected = margins(logits.mean(axis=0) + change, own_of(study, np.array(FORGET)))
    np.testing.assert_allclose(found.after, expected, rtol=1e-5, atol=1e-5)
    assert (found.after - found.before).mean() < 0  # less sure of what was never seen


# --- what an audit says ---------------------------------------------------------------------------


def test_what_forgotten_examples_were_and_became(study: Study, audited: Audit) -> None:
    found = read_before_after(study, audited, "ascent")
    assert found.rows.tolist() == list(FORGET)
    for one in (found.before, found.unlearned, found.oracle):
        assert one.margins.shape == one.right.shape == (N, len(FORGET))
    files = [oracle_file(study, "mlp", FORGET, number) for number in range(N)]
    unlearned = read_outputs(study, files, rows_of(study, FORGET).all)
    logits = unlearned.of(rows_of(study, FORGET).forget).matched
    labels = own_of(study, found.rows)
    np.testing.assert_allclose(found.oracle.margins, margins(logits, labels))
    np.testing.assert_array_equal(found.oracle.right, logits.argmax(axis=2) == labels)
    tests = margins(unlearned.test.matched, own_of(study))
    assert membership(found.oracle.margins, tests) == pytest.approx(audited.membership)
    assert np.abs(found.unlearned.margins - found.before.margins).mean() > 0.01
    checkpoints = [
        store.read_tensors(layout.outputs_file(study.root, "mlp", n, "train")) for n in (0, 1)
    ]
    own = margins(checkpoints[1]["logits"][list(FORGET)], own_of(study, np.array(FORGET)))
    np.testing.assert_allclose(found.before.margins[1], own, rtol=1e-4, atol=1e-4)
    p = probability(np.array([[0.0, 800.0], [0.0, -800.0]]))
    np.testing.assert_allclose(p, [0.5, 0.5])


def test_audits_of_another_version_are_left_out(study: Study, audited: Audit) -> None:
    path = layout.unlearning_audit_file(study.root, "mlp", "0" * 16)
    store.write_json(path, {**audited.to_dict(), "code": 1}, "0" * 16)
    assert [one.id for one in read_audits(study)] == [audited.id]


def measured(mean: float, half_width: float = 0.1) -> Measured:
    return Measured(mean, mean - half_width, mean + half_width)


def with_figures(
    audited: Audit, klom: dict[str, dict[str, float]], floor: float = 1.0, **changes: Any
) -> Audit:
    """An audit with these KLoM at half (method → part), and `changes` of ascent's other figures.

    Nothing else says that a part is harmed, and doing nothing differs from retraining.
    """

    def changed(one: MethodAudit) -> MethodAudit:
        parts = {}
        for part in PARTS:
            value = klom.get(one.method, {}).get(part, 1.0)
            half = Klom(measured(value), measured(value), 2)
            parts[part] = replace(
                getattr(one, part), at_half=half, accuracy=0.8, oracle_accuracy=0.8
            )
        one = replace(one, **parts, differs=dict.fromkeys(PARTS, 0.01))
        one = replace(one, closer=dict.fromkeys(PARTS, 0.5), attack=measured(0.05), remembered=[])
        return replace(one, **changes) if one.method == "ascent" else one

    return replace(
        audited,
        floor={part: Klom(measured(floor), measured(floor), 2) for part in PARTS},
        methods=[changed(one) for one in audited.methods],
    )


WAS = {"forget": 7.0, "retain": 1.0, "test": 1.0}
CLOSER = {"forget": 0.01, "retain": 0.5, "test": 0.5}


@pytest.mark.parametrize(
    ("ascent", "changes", "grade", "message"),
    [
        (1.8, {"share_of_way": measured(0.87), "closer": CLOSER}, "good", "87% of the way"),
        (
            1.8,
            {"share_of_way": measured(0.87), "closer": CLOSER, "attack": measured(0.4)},
            "part",
            "in 70% of guesses",
        ),
        (
            3.0,
            {"share_of_way": measured(0.67), "closer": CLOSER, "remembered": [7, 3]},
            "part",
            "2 forgotten examples of 15 are still predicted better than retrained models do, most "
            "clearly train-7, train-3",
        ),
        (
            3.0,
            {"share_of_way": measured(0.67), "closer": CLOSER, "remembered": [7]},
            "part",
            "1 forgotten example of 15 is still",
        ),
        (6.8, {"share_of_way": measured(0.03)}, "no", "not significantly closer than doing"),
        (9.0, {"share_of_way": measured(-0.3)}, "no", "farther from retrained ones than before"),
    ],
)
def test_the_verdict_follows_from_the_figures(
    audited: Audit, ascent: float, changes: dict[str, Any], grade: str, message: str
) -> None:
    figures = {UNCHANGED: WAS, "ascent": {**WAS, "forget": ascent}}
    found = method_verdict(with_figures(audited, figures, **changes), "ascent")
    assert found.grade == grade
    assert message in found.summary
    assert "4 models are few" in found.caution
    assert method_verdict(replace(audited, models=50), "ascent").caution == ""


def test_doing_nothing_never_counts_as_forgotten(audited: Audit) -> None:
    """Today's figures of 250 random examples: within twice the floor, but nothing was done."""
    nothing = {"forget": 4.03, "retain": 2.3, "test": 2.3}
    found = with_figures(audited, {UNCHANGED: nothing, "ascent": nothing}, floor=2.36)
    assert method_verdict(found, UNCHANGED).grade == "no"
    assert method_verdict(found, "ascent").grade == "no"


def test_there_is_little_to_forget_where_a_test_cannot_tell(audited: Audit) -> None:
    found = with_figures(audited, {})
    methods = [replace(one, differs=dict.fromkeys(PARTS, 0.3)) for one in found.methods]
    verdict = method_verdict(replace(found, methods=methods), "ascent")
    assert verdict.grade == "idle"
    assert "cannot be told from retrained ones" in verdict.summary


@pytest.mark.parametrize(
    ("klom", "closer", "accuracy", "part"),
    [
        ({"retain": 4.0}, {"retain": 0.99}, 0.8, "on the retain set"),
        ({"test": 4.0}, {"test": 0.97}, 0.8, "on test examples"),
        ({"test": 0.4}, {}, 0.5, "on test examples"),
        ({"retain": 4.0}, {"retain": 0.9}, 0.8, None),
        ({"retain": 1.05}, {"retain": 0.99}, 0.8, None),
    ],
)
def test_harm_to_other_examples(
    audited: Audit,
    klom: dict[str, float],
    closer: dict[str, float],
    accuracy: float,
    part: str | None,
) -> None:
    figures = {UNCHANGED: WAS, "ascent": {"forget": 1.8, **klom}}
    changes = {"share_of_way": measured(0.9), "closer": {**CLOSER, **closer}}
    found = with_figures(audited, figures, **changes)
    methods = [
        replace(one, test=replace(one.test, accuracy=accuracy)) if one.method == "ascent" else one
        for one in found.methods
    ]
    verdict = method_verdict(replace(found, methods=methods), "ascent")
    assert verdict.grade == ("good" if part is None else "harm")
    assert part is None or f"worse than before {part}" in verdict.summary


def test_klom_below_the_floor_gets_a_caution(audited: Audit) -> None:
    """A few models far off make bins so wide that all others share one."""
    figures = {UNCHANGED: WAS, "ascent": {"forget": 0.4}}
    found = with_figures(audited, figures, share_of_way=measured(1.1), closer=CLOSER)
    assert "Closer than retrained models are to each other" in (
        method_verdict(found, "ascent").caution
    )


def test_the_best_method_is_near_on_all_parts(audited: Audit) -> None:
    near = {"forget": 2.0, "retain": 1.0, "test": 1.0}
    harmful = {"forget": 1.0, "retain": 6.0, "test": 6.0}
    farther = {"forget": 0.01, "retain": 0.99, "test": 0.99}
    for good, bad in (("ascent", "finetune"), ("finetune", "ascent")):
        found = with_figures(audited, {UNCHANGED: WAS, good: near, bad: harmful})
        methods = [
            replace(one, closer=farther) if one.method == bad else one for one in found.methods
        ]
        assert best(replace(found, methods=methods)) == good
    only = replace(audited, methods=[audited.of(UNCHANGED)])
    assert best(only) == UNCHANGED


def test_an_audit_survives_being_written_and_read(audited: Audit) -> None:
    assert Audit.from_dict(json.loads(json.dumps(audited.to_dict()))) == audited
    one = audited.of("ascent")
    assert set(one.differs) == set(one.closer) == set(PARTS)
    assert audited.of(UNCHANGED).share_of_way is None
    assert audited.of(UNCHANGED).closer["forget"] == 1


# --- what it costs --------------------------------------------------------------------------------


def test_work_counts_what_is_there(study: Study, audited: Audit) -> None:
    done = audit_cost(study, FORGET, ["ascent", "finetune"], N, 0.2, "mlp")
    assert done.missing == 0
    assert done.there == 3 * N  # originals, oracles, oracles of the validation set
    more = audit_cost(study, FORGET, ["ascent"], N + 2, 0.2, "mlp")
    assert more.missing == 3 * 2
    assert more.unlearning == pytest.approx(0.2 * (6 + 6 * len(GRIDS["ascent"])))
    assert more.trainings == more.missing + more.unlearning
    cost = audit_cost(study, FORGET, ["matching"], N, 0.2, "mlp").unlearning
    assert cost > 0.2 * N * (1 + len(GRIDS["matching"]))  # with the prediction
    other = audit_cost(study, (1, 2), ["ascent"], N, 0.2, "mlp")
    assert other.there == N
    assert audit_cost(study, (1, 2), [UNCHANGED], N, 0.2, "mlp").unlearning == 0


def test_every_method_has_words() -> None:
    assert set(TITLES) == set(GRIDS)


# --- without torch --------------------------------------------------------------------------------


def test_the_page_reads_all_of_it_without_torch(study: Study, audited: Audit) -> None:
    kind("predict").work(study, kind("predict").checked(study, {"forget": list(FORGET)}), quiet)
    script = (
        "import sys\n"
        "from engine import Study\n"
        "from engine.applications.unlearning.audit_record import read_audits\n"
        "from engine.applications.unlearning.certificate import certified_file, check_job\n"
        "from engine.applications.unlearning.predicted_effect import read_predicted_margins\n"
        "from engine.applications.unlearning.before_after import read_before_after\n"
        "from engine.applications.unlearning.cost import audit_cost\n"
        f"study, rows = Study.open({str(study.root)!r}), {FORGET!r}\n"
        "assert read_predicted_margins(study, 'mlp', rows) is not None\n"
        "(audit,) = read_audits(study)\n"
        "read_before_after(study, audit, 'ascent')\n"
        "audit_cost(study, rows, ['matching'], 4, 0.05, 'mlp')\n"
        "certified_file(study, check_job(study, {'forget': rows}))\n"
        "assert 'torch' not in sys.modules, 'heavy import'"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


# --- the model and its certificate ----------------------------------------------------------------


def test_a_job_writes_a_model_of_the_audit_once(study: Study, audited: Audit) -> None:
    request = kind("certify").checked(study, {"audit": audited.id, "method": "ascent"})
    assert (request["forget"], request["budget"]) == (list(FORGET), 0.2)
    path = certified_file(study, request)
    assert not path.exists()
    assert kind("certify").work(study, request, quiet) == {"model": path.name}
    certificate = json.loads(path.with_suffix(".json").read_text())
    assert certificate["file"] == path.name
    assert certificate["model_sha256"] == store.file_digest(path)
    assert certificate["original_sha256"] == store.file_digest(
        layout.checkpoint_file(study.root, "mlp", 0)
    )
    assert certificate["audit"]["id"] == audited.id
    assert certificate["hyper"] == audited.of("ascent").hyper
    before = path.stat().st_mtime_ns
    kind("certify").work(study, request, quiet)
    assert path.stat().st_mtime_ns == before
    alone = kind("certify").checked(study, {"forget": list(FORGET), "method": "ascent"})
    assert certified_file(study, alone) != path


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"audit": "nothing"}, "no audit nothing of matching"),
        ({"forget": []}, "empty"),
        ({"forget": [1], "method": "oracle"}, "needs oracles"),
        ({"forget": [1], "budget": 2}, "budget"),
        ({"forget": [1], "checkpoint": 99}, "no checkpoint 99"),
        ({"forget": [1], "source": "hybrid"}, "logits = true"),
    ],
)
def test_models_that_cannot_be_made(study: Study, parameters: dict, says: str) -> None:
    with pytest.raises((DataloupeError, StoreError), match=says):
        kind("certify").checked(study, parameters)


def test_an_audit_by_a_source_that_is_not_there_is_refused_at_once(study: Study) -> None:
    with pytest.raises(StoreError, match="logits = true"):
        kind("unlearn").checked(study, {"forget": [1], "models": N, "source": "hybrid"})
