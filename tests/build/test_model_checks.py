"""A build checks models before it trains any, and says what it does with them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from engine import Progress, Study
from engine.build.build import build_data
from engine.build.model_checks import check_models
from engine.build.models import initial_model
from engine.build.run import Run
from engine.build.stages.checkpoints import recipe_fingerprint
from engine.cli.main import main
from engine.models import build_model
from engine.store import layout
from engine.store.errors import CheckpointError, SpecError

SPEC = """\
name = "Checks"
[data]
source = "fashion-mnist"
train_limit = 60
test_limit = 20
[algorithms.first]
architecture = "mlp"
architecture_options = { widths = [8] }
epochs = 1
[algorithms.second]
architecture = "mlp"
architecture_options = { widths = [8] }
initial_weights = "start.safetensors"
epochs = 1
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with its data, whose second algorithm starts from a model of seven classes."""
    study = Study.create(tmp_path_factory.mktemp("checks") / "study", SPEC)
    build_data(study)
    pretrained = build_model("mlp", {"widths": [8]}, {"shape": [1, 28, 28]}, 7, seed=5)
    save_file(pretrained.state_dict(), study.root / "start.safetensors")
    return study.root


def with_spec(folder: Path, text: str) -> Study:
    (folder / "study.toml").write_text(text)
    return Study.open(folder)


def test_a_head_of_another_size_is_refused_before_the_first_algorithm_trains(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = with_spec(folder, SPEC)
    assert main(["build", str(folder), "--workers", "0"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("dataloupe: algorithms.second: ")
    assert "a head of 7 outputs where this study needs 10. To train a fresh one, set" in line
    assert 'reset = ["head"]' in line
    assert not layout.checkpoint_file(study.root, "first", 0).exists()


def test_reset_is_said_and_the_rest_is_read(folder: Path) -> None:
    study = with_spec(folder, SPEC + 'reset = ["head"]\n')
    seen: list[Progress] = []
    check_models(Run(study, "cpu", 0, seen.append))
    (note,) = [step.note for step in seen]
    assert note.startswith("second: head.weight, head.bias start from a fresh initialization")
    spec = study.spec.algorithms["second"]
    model, other = (initial_model(study, spec, seed).state_dict() for seed in (0, 1))
    start = build_model("mlp", {"widths": [8]}, {"shape": [1, 28, 28]}, 7, seed=5).state_dict()
    assert torch.equal(model["trunk.1.weight"], start["trunk.1.weight"])
    assert not torch.equal(model["head.weight"], other["head.weight"])


def test_recipes_without_reset_keep_their_fingerprint(folder: Path) -> None:
    """Studies built before the key existed are not stale."""
    fingerprints = set()
    for end in ("", "reset = []\n", 'reset = ["head"]\n'):
        fingerprints.add(recipe_fingerprint(with_spec(folder, SPEC + end), "second"))
    assert len(fingerprints) == 2


def test_reset_without_initial_weights_is_a_mistake(folder: Path) -> None:
    text = re.sub("initial_weights.*", 'reset = ["head"]', SPEC)
    with pytest.raises(SpecError, match=r"algorithms\.second: `reset` names parts"):
        with_spec(folder, text)


def test_every_checkpoint_is_compared_before_the_first_is_evaluated(folder: Path) -> None:
    good = build_model("mlp", {"widths": [8]}, {"shape": [1, 28, 28]}, 10, seed=0)
    save_file(good.state_dict(), folder / "good.safetensors")
    text = SPEC.replace(
        'initial_weights = "start.safetensors"',
        'weights = ["good.safetensors", "start.safetensors"]',
    )
    with pytest.raises(
        CheckpointError, match=r"algorithms\.second: .*start\.safetensors does not fit"
    ):
        check_models(Run(with_spec(folder, text), "cpu", 0, lambda step: None))
