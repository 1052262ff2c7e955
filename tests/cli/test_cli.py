"""The command line: what it prints, and one clear line with exit code 2 for every mistake."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from engine import Study
from engine.applications.joint_removal import strongest_together
from engine.attribution.evaluation.quality import Quality
from engine.build.method_files import write_method
from engine.cli.main import main
from engine.store import layout
from engine.store.quantities import LDS
from tests.builders.synthetic_quality import write_quality
from tests.builders.synthetic_study import write_study


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_init_writes_a_spec_that_opens(tmp_path: Path, capsys) -> None:
    code, out, _ = run(capsys, "init", tmp_path / "study")
    assert code == 0
    assert "dataloupe build" in out
    assert Study.open(tmp_path / "study").spec.algorithms


def test_init_takes_ones_own_data(tmp_path: Path, capsys) -> None:
    (tmp_path / "photos").mkdir()
    code, _, _ = run(
        capsys, "init", tmp_path / "s", "--template", "photos", "--data", tmp_path / "photos"
    )
    assert code == 0
    assert Study.open(tmp_path / "s").spec.data.source == str(tmp_path / "photos")


def test_build_says_where_to_look_next(small_study: Study, tmp_path: Path, capsys) -> None:
    copy = shutil.copytree(small_study.root, tmp_path / "copy")
    code, out, _ = run(capsys, "build", copy, "--workers", 0)
    assert code == 0
    assert f"dataloupe serve {copy}" in out
    for title in ("Read and check the data", "Train checkpoints", "Attribute", "Rank and index"):
        assert title in out


def test_explain_in_words_and_as_json(small_study: Study, capsys) -> None:
    code, out, _ = run(capsys, "explain", small_study.root, "--test", 17, "--k", 3, "--json")
    assert code == 0
    assert json.loads(out) == small_study.explain(17, k=3).to_dict()
    code, out, _ = run(capsys, "explain", small_study.root, "--test", "test-17", "--k", 3)
    assert code == 0
    for word in ("Supporting", "Opposing", "TRAK", "LDS 0."):
        assert word in out


def test_what_if_without_those_that_do_most_together(small_study: Study, capsys) -> None:
    found = strongest_together(small_study, 17, 5)
    asked = ("whatif", small_study.root, "--strongest-together", "test-17", "--size", 5)
    code, out, _ = run(capsys, *asked, "--json")
    assert code == 0
    content = json.loads(out)
    assert content["together"]["rows"] == found.rows.tolist()
    assert sorted(content["removed"]) == sorted(found.rows.tolist())
    code, out, _ = run(capsys, *asked)
    assert code == 0
    assert f"{found.ratio:.2f} times that of the 5 strongest one by one" in " ".join(out.split())
    assert "Predicted without 5 training examples" in out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--remove", "train-1", "--size", "3"], "--size is for --strongest-together"),
        (["--strongest-together", "test-17", "--size", "0"], "size must be from 1 to 299"),
        (["--strongest-together", "nobody"], "nobody"),
    ],
)
def test_what_if_cannot_be_asked_so(
    small_study: Study, options: list[str], said: str, capsys
) -> None:
    code, _, err = run(capsys, "whatif", small_study.root, *options)
    assert code == 2
    assert said in err


def test_evaluate_in_words_and_as_json(tmp_path: Path, capsys) -> None:
    study = write_quality(write_study(tmp_path / "study", n_test=60))
    code, out, _ = run(capsys, "evaluate", study.root, "--json")
    assert code == 0
    assert Quality.from_dict(json.loads(out)) == study.quality()
    code, out, _ = run(capsys, "evaluate", study.root)
    assert code == 0
    lds = study.quality().methods["hybrid"].lds
    assert LDS.interval(lds) in out
    assert "TRAK + runs *" in out
    assert "Embedding similarity (baseline)" in out
    assert "TRAK + runs: Good." in out
    assert "Noise ceiling 0.820 (0.780 to 0.860): the LDS that perfect predictions would" in out
    assert f"reach {lds.mean / 0.82:.0%} of it" in " ".join(out.split())
    assert "Prove what one example did." in out
    assert "Sneaker  " not in out
    assert "Sneaker  " in run(capsys, "evaluate", study.root, "--by-class")[1]
    assert "Not measured yet" not in out


def test_evaluate_names_imported_scores_that_are_not_measured(tmp_path: Path, capsys) -> None:
    study = write_quality(write_study(tmp_path / "study", n_test=60))
    scores = np.zeros((60, study.dataset.n_train), np.float32)
    write_method(study, "cnn", "mine", lambda tests: scores[tests], {"method": "Mine"}, "f")
    _, out, _ = run(capsys, "evaluate", study.root)
    assert f"Not measured yet: Mine. `dataloupe build {study.root}` does it." in (
        " ".join(out.split())
    )


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ("", "add `[subset_runs]` with `masks = 200` to {spec}, then `dataloupe build {root}`"),
        ("[subset_runs]\nmasks = 20\n", "0 of 24 so far"),
    ],
)
def test_evaluate_says_what_is_missing(tmp_path: Path, capsys, runs: str, message: str) -> None:
    study = write_study(tmp_path / "study")
    layout.spec_file(study.root).write_text(layout.spec_file(study.root).read_text() + runs)
    code, _, err = run(capsys, "evaluate", study.root)
    assert code == 2
    assert err.count("\n") == 1
    assert message.format(spec=layout.spec_file(study.root), root=study.root) in err


def test_doctor_says_what_is_broken(small_study: Study, tmp_path: Path, capsys) -> None:
    assert run(capsys, "doctor", small_study.root)[0] == 0
    copy = Study.open(shutil.copytree(small_study.root, tmp_path / "copy"))
    path = layout.dual_file(copy.root, "mlp", 1)
    path.write_bytes(path.read_bytes()[:-4])
    code, out, _ = run(capsys, "doctor", copy.root)
    assert code == 2
    assert str(path) in out
    assert run(capsys, "doctor", copy.root, "--repair")[0] == 0
    assert not path.exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            {"weight": torch.ones(30, 50), "bias": torch.ones(30)},
            "2 tensors with 1,530 values.",
        ),
        (
            {"model": {"state_dict": {"weight": torch.ones(2, 2)}}},
            "1 tensor with 4 values found under model.state_dict.",
        ),
        (torch.ones(1), "1 tensor with 1 value."),
    ],
)
def test_convert_says_in_plain_text_what_it_wrote(
    tmp_path: Path, capsys, content: object, words: str
) -> None:
    torch.save(content, tmp_path / "model.pt")
    code, out, _ = run(capsys, "convert", tmp_path / "model.pt")
    assert code == 0
    assert out == f"Wrote {tmp_path / 'model.safetensors'}: {words}\n"
    assert (tmp_path / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["build", "nowhere"], "is not a folder"),
        (["serve", "nowhere"], "is not a folder"),
        (["explain", "{study}", "--test", "999"], "a row from #0 to #59"),
        (["explain", "{study}", "--test", "nobody"], "nobody"),
        (["explain", "{study}", "--test", "0", "--k", "0"], "k must be"),
        (["evaluate", "{study}", "--algorithm", "vit"], "no algorithm 'vit'"),
        (["build", "{study}", "--device", "cuda", "--workers", "0"], "cuda"),
        (["build", "{study}", "--rebuild", "everything"], "no stage"),
        (["init", "{study}"], "already exists"),
        (["init", "new", "--template", "imagenet"], "no template"),
        (["init", "new", "--template", "photos"], "needs --data"),
        (["convert", "nothing.pt"], "nothing.pt"),
        (["serve", "{study}", "--port", "99999999"], "Port"),
    ],
)
def test_mistakes_get_one_line_and_exit_code_2(
    small_study: Study, tmp_path: Path, monkeypatch, capsys, arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if "cuda" in arguments and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    filled = [argument.format(study=small_study.root) for argument in arguments]
    code, _, err = run(capsys, *filled)
    assert code == 2
    assert words in err
    assert err.startswith("dataloupe: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    assert not (tmp_path / "new").exists()


def test_a_used_port_is_said(small_study: Study, capsys) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, _, err = run(capsys, "serve", small_study.root, "--port", taken.getsockname()[1])
    assert code == 2
    assert "in use" in err
