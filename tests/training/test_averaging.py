"""The moving average of the weights over training."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from engine import Study
from engine.build.replaying import check_replayable
from engine.build.stages.checkpoints import recipe_fingerprint
from engine.models import build_model
from engine.store import layout
from engine.store.errors import MissingCapability
from engine.store.spec import AlgorithmSpec
from engine.tasks import load_task
from engine.training.stepping import Training
from engine.training.trainer import train
from tests.builders.copies import copy_of

TASK = load_task("image-classification")
ENCODING = {"shape": [1, 8, 8], "mean": [0.5], "std": [0.25], "cell": 8}
DECAY = 0.6


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "input": rng.integers(0, 256, (40, 1, 8, 8), dtype=np.uint8),
        "label": rng.integers(0, 3, 40),
    }


def fresh() -> nn.Module:
    """With BatchNorm: its running statistics are averaged, too, and its counter is not."""
    return build_model("resnet-small", {"width": 4}, ENCODING, 3, 0)


def recipe(**changes: float) -> AlgorithmSpec:
    return AlgorithmSpec(epochs=3, batch_size=10, learning_rate=0.1, **changes)  # type: ignore[arg-type]


def test_it_is_the_average_over_the_steps(arrays: dict[str, np.ndarray]) -> None:
    training = Training(TASK, fresh(), arrays, ENCODING, recipe(), 3, "cpu")
    means = {name: one.clone().double() for name, one in training.model.state_dict().items()}
    with training.running():
        for step in range(1, training.n_steps + 1):
            training.advance()
            decay = min(DECAY, (1 + step) / (10 + step))
            for name, one in training.model.state_dict().items():
                means[name] = decay * means[name] + (1 - decay) * one.double()
    last = training.conclude().state_dict()
    found = train(TASK, fresh(), arrays, ENCODING, recipe(averaging=DECAY), 3, "cpu").state_dict()
    counters = [name for name, one in found.items() if not one.is_floating_point()]
    assert counters
    for name, one in found.items():
        wanted = last[name] if name in counters else means[name].float()
        torch.testing.assert_close(one, wanted, rtol=1e-4, atol=1e-5)
        assert name in counters or not torch.allclose(one, last[name], rtol=1e-3)


def test_the_same_bytes_again(arrays: dict[str, np.ndarray]) -> None:
    first, second = (
        train(TASK, fresh(), arrays, ENCODING, recipe(averaging=DECAY), 3, "cpu") for _ in range(2)
    )
    for name, one in first.state_dict().items():
        assert torch.equal(one, second.state_dict()[name]), name


def test_replay_and_fingerprints_know_it(
    small_study: Study, tmp_path_factory: pytest.TempPathFactory
) -> None:
    algorithm = "mlp"
    without = recipe_fingerprint(small_study, algorithm)
    check_replayable(small_study, algorithm)
    study = changed(small_study, tmp_path_factory, "averaging = 0.5")
    assert recipe_fingerprint(study, algorithm) != without
    with pytest.raises(MissingCapability, match="averages its weights"):
        check_replayable(study, algorithm)
    # Studies of before the key are what they were.
    assert recipe_fingerprint(changed(small_study, tmp_path_factory, ""), algorithm) == without


def changed(study: Study, factory: pytest.TempPathFactory, line: str) -> Study:
    own = copy_of(study, factory.mktemp("averaged") / "study")
    path = layout.spec_file(own.root)
    path.write_text(path.read_text().replace("epochs =", f"{line}\nepochs =", 1))
    return Study.open(own.root)
