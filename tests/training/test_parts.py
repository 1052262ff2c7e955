"""Training a part of a model, decay groups and clipping, against plain torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from engine.build.stages.checkpoints import _recipe
from engine.models import build_model
from engine.models.parts import blocks_of, freeze, freeze_modes
from engine.store import fingerprint_of
from engine.store.errors import SpecError
from engine.store.sharded_rows import ShardedRows
from engine.store.spec import AlgorithmSpec
from engine.tasks import load_task
from engine.tasks.text_options import Choice, Options
from engine.tasks.tokenizers import plan_tokens
from engine.training import frozen
from engine.training.frozen import keep_frozen
from engine.training.optimizer import parameter_groups
from engine.training.outputs import batches
from engine.training.trainer import train
from tests.builders.sentences import sentences

TASK = load_task("text-classification")
ARCHITECTURE = "bert-small"
SIZE = {"layers": 3, "width": 16, "heads": 2}


@pytest.fixture(scope="module")
def encoding() -> dict[str, Any]:
    rows = [(text, str(row)) for row, text in enumerate(texts())]
    return plan_tokens(Choice("wordpiece"), Options(max_vocabulary=150), [rows])


def texts() -> list[str]:
    """Sentences of several lengths."""
    found = sentences(40, 0)["text"]
    return [text + " " + text if row % 3 else text for row, text in enumerate(found)]


@pytest.fixture(scope="module")
def arrays(encoding: dict[str, Any]) -> dict[str, np.ndarray]:
    labels = (sentences(40, 0)["label"] == "good").astype(int)
    rows = [
        {"input": text, "label": label, "id": "x"}
        for text, label in zip(texts(), labels, strict=True)
    ]
    return TASK.encode(rows, Options(), encoding).arrays


def fresh(encoding: dict[str, Any], train: str = "all", dropout: float = 0.1) -> nn.Module:
    model = build_model(ARCHITECTURE, {**SIZE, "dropout": dropout}, encoding, 2, 0)
    freeze(model, train)
    return model


def recipe(**changes: Any) -> AlgorithmSpec:
    plain = {"epochs": 2, "batch_size": 8, "learning_rate": 1e-3, "optimizer": "adamw"}
    return AlgorithmSpec.model_validate(
        {"architecture": ARCHITECTURE, "weight_decay": 0.1, **plain, **changes}
    )


HEAD = {"bert.pooler.dense", "classifier"}


@pytest.mark.parametrize(
    ("train", "starts"),
    [
        ("head", HEAD),
        ("last-1", {"bert.encoder.layer.2"} | HEAD),
        ("last-3", {f"bert.encoder.layer.{n}" for n in range(3)} | HEAD),
    ],
)
def test_only_what_is_named_is_trained(
    train: str, starts: set[str], encoding: dict[str, Any]
) -> None:
    for name, parameter in fresh(encoding, train).named_parameters():
        assert parameter.requires_grad == any(name.startswith(f"{s}.") for s in starts), name


@pytest.mark.parametrize(
    ("architecture", "options", "train", "wanted"),
    [
        ("resnet-small", {"width": 2}, "head", {"head"}),
        ("mlp", {"widths": [8, 4]}, "last-1", {"trunk.3", "head"}),
    ],
)
def test_parts_of_other_architectures(
    architecture: str, options: dict[str, Any], train: str, wanted: set[str]
) -> None:
    model = build_model(architecture, options, {"shape": [1, 8, 8]}, 3, 0)
    freeze(model, train)
    found = {n.rpartition(".")[0] for n, p in model.named_parameters() if p.requires_grad}
    assert found == wanted


def test_blocks_are_the_last_outermost_list() -> None:
    def stage(count: int) -> nn.Sequential:
        return nn.Sequential(
            *(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)) for _ in range(count))
        )

    model = nn.Sequential(*(nn.ReLU(), stage(3), nn.Tanh(), stage(2), nn.Linear(2, 2)))
    blocks = blocks_of(model)
    assert blocks is not None
    assert blocks.names == ("3.0", "3.1")
    freeze(model, "head")
    assert [n for n, p in model.named_parameters() if p.requires_grad] == ["4.weight", "4.bias"]


def test_a_model_without_blocks_has_its_last_linear_layer_as_head() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.out = nn.Linear(3, 3), nn.Linear(3, 2)

    model = Net()
    assert blocks_of(model) is None
    freeze(model, "head")
    assert [n for n, p in model.named_parameters() if p.requires_grad] == ["out.weight", "out.bias"]
    with pytest.raises(SpecError, match="the model has no blocks"):
        freeze(Net(), "last-1")


def test_biases_and_norms_have_no_decay_in_transformers_with_adamw(
    encoding: dict[str, Any],
) -> None:
    model = fresh(encoding)
    decayed, spared = parameter_groups(model, recipe())
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert spared["weight_decay"] == 0
    assert "weight_decay" not in decayed
    for name in (names[id(parameter)] for parameter in spared["params"]):
        assert name.endswith("bias") or "LayerNorm" in name
    for name in (names[id(parameter)] for parameter in decayed["params"]):
        assert name.endswith("weight")
        assert "LayerNorm" not in name
    every = list(model.parameters())
    assert len(decayed["params"]) + len(spared["params"]) == len(every)
    for other in (recipe(optimizer="sgd"), recipe(architecture="mlp"), recipe(decay="all")):
        assert [id(p) for p in parameter_groups(model, other)] == [id(p) for p in every]
    assert len(parameter_groups(model, recipe(architecture="mlp", decay="weights"))) == 2


def test_clipping_limits_the_step(encoding: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """With plain SGD of one step, the change is the rate times the clipped gradient."""
    spec = recipe(
        optimizer="sgd", momentum=0, weight_decay=0, batch_size=40, epochs=1, warmup=0,
        schedule="constant", learning_rate=1, gradient_clipping=0.01, decay="all",
    )  # fmt: skip
    before = fresh(encoding, dropout=0)
    after = train(TASK, fresh(encoding, dropout=0), arrays, encoding, spec, 0, "cpu")
    pairs = zip(before.parameters(), after.parameters(), strict=True)
    change = torch.cat([(a - b).flatten() for a, b in pairs])
    assert change.norm().item() == pytest.approx(0.01, rel=1e-3)


@pytest.mark.determinism
@pytest.mark.parametrize("train_", ["head", "last-1"])
def test_frozen_blocks_run_once_and_give_the_same_model(
    train_: str,
    encoding: dict[str, Any],
    arrays: dict[str, np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec = recipe(train=train_, epochs=3)
    calls = []

    def trained() -> nn.Module:
        model = fresh(encoding, train_)
        calls.clear()
        blocks = blocks_of(model)
        assert blocks is not None
        blocks.modules[0].register_forward_hook(
            lambda module, args, out: calls.append(tuple(module.attention.self.query.weight.shape))
        )
        return train(TASK, model, arrays, encoding, spec, 1, "cpu")

    kept, again = trained(), trained()
    with monkeypatch.context() as patch:
        patch.setattr(frozen, "MOST_BYTES", 10)
        computed = trained()
    start = fresh(encoding, train_)
    for name, tensor in kept.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
        torch.testing.assert_close(tensor, computed.state_dict()[name], rtol=1e-3, atol=1e-5)
        is_trained = dict(kept.named_parameters())[name].requires_grad
        assert torch.equal(tensor, start.state_dict()[name]) != is_trained, name


def test_what_the_frozen_blocks_give_is_shared_by_models_that_differ_in_nothing_it_depends_on(
    encoding: dict[str, Any], arrays: dict[str, np.ndarray]
) -> None:
    def values(
        arrays: dict[str, np.ndarray], architecture: str = "", seed: int = 0, changed: bool = False
    ) -> torch.Tensor:
        model = fresh(encoding, "last-1").train()
        freeze_modes(model)
        torch.manual_seed(seed)
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                nn.init.normal_(parameter, std=0.1)
            elif changed and "query" in name:
                parameter.data.mul_(2)
        kept = keep_frozen(TASK, model, arrays, encoding, "cpu", architecture)
        assert kept is not None
        return kept.outputs.values

    first = values(arrays)
    assert values(arrays, seed=1) is first  # other weights of the trained blocks
    other = values(arrays, changed=True)
    assert not torch.equal(other, first)
    assert values(arrays, changed=True) is other
    assert values(arrays, "another architecture", changed=True) is not other
    fewer = {name: array[::-1].copy() for name, array in arrays.items()}
    assert not torch.equal(values(fewer), first)


def test_frozen_blocks_of_several_shards(
    encoding: dict[str, Any], arrays: dict[str, np.ndarray]
) -> None:
    shards: Any = {name: ShardedRows([array[:5], array[5:]]) for name, array in arrays.items()}
    kept = []
    for some in (arrays, shards):
        model = fresh(encoding, "last-1").train()
        freeze_modes(model)
        kept.append(keep_frozen(TASK, model, some, encoding, "cpu", "of shards"))
    whole, sharded = kept
    assert whole is not None
    assert sharded is not None
    assert sharded.outputs.values is whole.outputs.values


def test_what_is_kept_is_what_the_blocks_give(
    encoding: dict[str, Any], arrays: dict[str, np.ndarray]
) -> None:
    model = fresh(encoding, "last-1").train()
    freeze_modes(model)
    kept = keep_frozen(TASK, model, arrays, encoding, "cpu")
    assert kept is not None
    lengths = np.minimum(arrays["length"], encoding["max_tokens"])
    assert np.diff(kept.outputs.starts).tolist() == lengths.tolist()
    (batch,) = list(batches(TASK, arrays, encoding, 40, "cpu"))
    model.eval()
    wanted = TASK.model_output(model, batch)
    rows = np.arange(40)
    ran = []
    block = blocks_of(model).modules[0]  # type: ignore[union-attr]
    handle = block.attention.register_forward_hook(lambda *_: ran.append(1))
    with kept.standing_for(rows):
        torch.testing.assert_close(TASK.model_output(model, batch), wanted)
        assert not ran
    with kept.standing_for(rows[::-1].copy()):
        assert not torch.allclose(TASK.model_output(model, batch), wanted)
    torch.testing.assert_close(TASK.model_output(model, batch), wanted)
    assert ran
    handle.remove()
    model.train()
    embeddings = model.get_submodule("bert.embeddings.LayerNorm")
    embeddings.requires_grad_(True)  # trained before the frozen blocks
    assert keep_frozen(TASK, model, arrays, encoding, "cpu") is None
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    assert keep_frozen(TASK, model, arrays, encoding, "cpu") is None


def test_recipes_without_the_new_keys_keep_their_fingerprints() -> None:
    """These are fingerprints of version 0.9, of which people have studies."""
    plain = AlgorithmSpec(architecture="mlp")
    tuned = AlgorithmSpec(initial_weights="a.safetensors", reset=["fc"], optimizer="adamw")
    assert fingerprint_of(_recipe(plain)) == "2bd7ffa8abfe1db9"
    assert fingerprint_of(_recipe(tuned)) == "58a03c4c90fa60cc"
    for key, value in {"train": "head", "gradient_clipping": 1.0, "decay": "all"}.items():
        other = AlgorithmSpec.model_validate({"architecture": "mlp", key: value})
        assert fingerprint_of(_recipe(other)) != fingerprint_of(_recipe(plain)), key
