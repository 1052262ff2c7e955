"""Exact scores of a study: kept, reused, refused, and printed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from engine import Study
from engine.build import replaying
from engine.cli.main import main
from engine.store.errors import DataloupeError
from engine.study.models import read_predictions
from tests.builders.copies import copy_of


def test_scores_are_kept_and_shared(
    small_study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = copy_of(small_study, tmp_path / "study")
    jobs: list[replaying.Job] = []
    work = replaying.replay_model

    def counted(job: replaying.Job) -> None:
        jobs.append(job)
        work(job)

    monkeypatch.setattr(replaying, "replay_model", counted)
    ids = [str(study.table("test")["id"].iloc[row]) for row in (4, 9)]
    first = study.replay(ids, seeds=(0, 1), workers=0)
    assert first.shape == (2, 2, 300)
    assert first.dtype == np.float32
    assert len(jobs) == 2
    # What is there is not computed again; only what lacks is.
    again = study.replay([9, 4, 4], seeds=(1,), workers=0)
    assert len(jobs) == 2
    assert np.array_equal(again, first[[1]][:, [1, 0, 0]])
    group = study.replay([4, 9], seeds=(0,), weights=np.array([[1.0, -2.0]]), workers=0)
    np.testing.assert_allclose(group[0, 0], first[0, 0] - 2 * first[0, 1], rtol=1e-4, atol=1e-6)
    assert [len(job.queries) for job in jobs] == [2, 2, 1]
    # The replayed model is the checkpoint.
    from engine import store
    from engine.store import layout

    outputs = store.read_tensors(layout.outputs_file(study.root, "mlp", 1, "test"))["output"]
    query = replaying.Query((4,), (1.0,))
    fingerprint = replaying.replay_fingerprint(study, "mlp")
    kept = store.read_tensors(replaying.replay_file(study.root, "mlp", fingerprint, 1, query))
    assert kept["value"][0] == pytest.approx(outputs[4], rel=1e-5)


def test_the_command_prints_the_mean_and_how_many_models_agree(
    small_study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = copy_of(small_study, tmp_path / "study")
    scores = study.replay([7], seeds=range(3), workers=0)[:, 0]
    command = ["explain", str(study.root), "--test", "#7", "--exact", "--seeds", "3", "--k", "4"]
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    mean = scores.mean(axis=0)
    assert [one["row"] for one in found["supporting"]] == np.argsort(-mean)[:4].tolist()
    for one in found["opposing"]:
        assert one["score"] == pytest.approx(mean[one["row"]], rel=1e-4)
        assert one["agreeing"] == (scores[:, one["row"]] < 0).sum()
    assert main(command) == 0
    assert "helps in 3 of 3 models" in capsys.readouterr().out


def test_a_group_is_one_query(
    small_study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = copy_of(small_study, tmp_path / "study")
    labels = study.table("test")["label"].to_numpy()
    wrong = ~read_predictions(study, "test")["correct"].to_numpy(bool)
    label = labels[wrong][0]
    rows = np.flatnonzero(wrong & (labels == label))
    weights = np.full((1, len(rows)), 1 / len(rows))
    mean = study.replay(rows, seeds=range(2), weights=weights, workers=0)[:, 0].mean(axis=0)
    command = ["explain", str(study.root), "--exact", "--seeds", "2", "--k", "4"]
    assert main([*command, "--mistakes", str(label), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["rows"] == rows.tolist()
    assert [one["row"] for one in found["supporting"]] == np.argsort(-mean)[:4].tolist()
    # The same group as a list, in any order, and as a file such as an exported slice.
    listed = tmp_path / "slice.csv"
    ids = study.table("test")["id"].astype(str).iloc[rows[::-1]]
    listed.write_text("\n".join(["id", *ids]))
    for which in (",".join(f"#{row}" for row in rows[::-1]), str(listed)):
        assert main([*command, "--test", which]) == 0
        assert f"mean margin of {len(rows)} test example" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--mistakes", "nobody", "--exact"], "No test example is of the class 'nobody'"),
        (["--mistakes", "nobody"], "--mistakes is for exact scores"),
    ],
)
def test_groups_that_there_are_not(
    options: list[str], text: str, small_study: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", str(small_study.root), *options]) == 2
    assert text in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--seeds", "2"], "--seeds is for exact scores"),
        (["--exact", "--seeds", "0"], "--seeds is 0"),
        (["--exact", "--memory", "-1"], "--memory is -1"),
        (["--exact", "--method", "trak"], "leave out --method"),
        (["--exact", "--output", "predicted"], "leave out --output"),
    ],
)
def test_options_that_do_not_go_together(
    options: list[str], text: str, small_study: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", str(small_study.root), "--test", "#7", *options]) == 2
    assert text in capsys.readouterr().err


def test_models_without_a_recipe_are_refused(small_study: Study) -> None:
    spec = small_study.spec.algorithms["mlp"]
    own = type(spec).model_validate({"architecture": "mlp", "weights": ["a.safetensors"]})
    upload = SimpleNamespace(name="net.safetensors")
    cases: list[tuple[dict[str, object], dict[str, object]]] = [
        ({"mlp": own}, {}),
        ({}, {"mlp": upload}),
    ]
    for algorithms, uploads in cases:
        study = SimpleNamespace(root=Path("s"), algorithms=algorithms, uploads=uploads)
        with pytest.raises(DataloupeError, match="replay walks back through a training") as raised:
            replaying.check_replayable(cast(Study, study), "mlp")
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("ask", "text"),
    [
        (lambda study: study.replay([]), "at least one test example"),
        (lambda study: study.replay([1], seeds=[-1]), "not -1"),
        (lambda study: study.replay([1, 2], weights=np.ones((1, 3))), "2 tests"),
        (lambda study: study.replay([1], memory_mib=0, workers=0), "Replay needs at least"),
    ],
)
def test_what_cannot_be_asked(
    ask: Callable[[Study], object], text: str, small_study: Study, tmp_path: Path
) -> None:
    with pytest.raises(DataloupeError, match=text):
        ask(copy_of(small_study, tmp_path / "study"))
