"""Weights: exact round trips, files of other tools, and hostile or foreign files refused."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from engine.models import build_model
from engine.store import FINGERPRINT_KEY, read_header, read_metadata
from engine.store.errors import CheckpointError
from engine.tasks import load_task
from engine.training.outputs import evaluate
from engine.training.weights import load_weights, save_weights

ENCODING = {"shape": [1, 8, 8], "mean": [0.0], "std": [1.0]}


def model_of(seed: int = 0, width: int = 2, architecture: str = "resnet-small") -> nn.Module:
    options = {"width": width} if architecture == "resnet-small" else {"widths": [width]}
    return build_model(architecture, options, ENCODING, 3, seed)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "weights.safetensors"


def same(a: nn.Module, b: nn.Module) -> bool:
    first, second = a.state_dict(), b.state_dict()
    return all(torch.equal(first[name], second[name]) for name in first)


def refusal(path: Path, model: nn.Module | None = None) -> str:
    model = model or model_of(1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        load_weights(path, model)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_round_trip_is_exact(path: Path):
    model = model_of(0).to(memory_format=torch.channels_last)
    save_weights(path, model, "0123", {"seed": 0})
    assert read_header(path)[1][FINGERPRINT_KEY] == "0123"
    assert read_metadata(path) == {"seed": 0}
    loaded = model_of(1)
    assert not same(loaded, model)
    load_weights(path, loaded)
    assert same(loaded, model)
    again = path.with_name("again.safetensors")
    save_weights(again, loaded, "0123", {"seed": 0})
    assert again.read_bytes() == path.read_bytes()


@pytest.mark.determinism
def test_loaded_weights_give_the_same_outputs_as_trained_ones(path: Path):
    """A resumed build evaluates the file, an undisturbed one the model in memory."""
    task = load_task("image-classification")
    rng = np.random.default_rng(0)
    arrays = {
        "input": rng.integers(0, 256, (20, 1, 8, 8), dtype=np.uint8),
        "label": rng.integers(0, 3, 20),
    }
    model = model_of(0).to(memory_format=torch.channels_last)
    save_weights(path, model, "")
    loaded = model_of(1)
    load_weights(path, loaded)
    first, second = (evaluate(task, m, arrays, ENCODING, 8, "cpu") for m in (model, loaded))
    assert all(first[name].tobytes() == second[name].tobytes() for name in first)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_files_of_other_tools_and_other_precisions(dtype: torch.dtype, path: Path):
    source = model_of(0)
    state = {
        name: tensor.to(dtype) if tensor.is_floating_point() else tensor.to(torch.int32)
        for name, tensor in source.state_dict().items()
    }
    save_file(state, path, metadata={"format": "pt"})
    model = model_of(1)
    load_weights(path, model)
    for name, tensor in model.state_dict().items():
        assert tensor.dtype == source.state_dict()[name].dtype
        assert torch.equal(tensor, state[name].to(tensor.dtype))


def test_half_precision_models_are_kept(path: Path):
    for dtype in (torch.bfloat16, torch.float16):
        model = model_of(0).to(dtype)
        save_weights(path, model, "")
        loaded = model_of(1).to(dtype)
        load_weights(path, loaded)
        assert same(loaded, model)


def test_another_architecture(path: Path):
    save_weights(path, model_of(architecture="mlp"), "")
    text = refusal(path)
    for words in (
        "'trunk.0.0.weight', 'trunk.0.1.weight'",
        "and 32 more missing; 'trunk.1.bias', 'trunk.1.weight' unexpected",
        "Check architecture and architecture_options",
    ):
        assert words in text


def test_another_width_names_shapes_and_options(path: Path):
    save_weights(path, model_of(width=4), "")
    text = refusal(path)
    assert "'trunk.0.0.weight' is [4, 1, 3, 3], the architecture has [2, 1, 3, 3]" in text
    assert "architecture_options" in text


def test_a_missing_and_an_unexpected_tensor(path: Path):
    state = model_of().state_dict()
    save_file({name: tensor for name, tensor in state.items() if name != "head.bias"}, path)
    assert "'head.bias' missing" in refusal(path)
    save_file({**state, "extra": torch.zeros(1)}, path)
    assert "'extra' unexpected" in refusal(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite(value: float, path: Path):
    state = {name: tensor.clone() for name, tensor in model_of().state_dict().items()}
    state["head.weight"][1, 2] = value
    save_file(state, path)
    assert "'head.weight' holds NaN or infinite" in refusal(path)


def test_values_that_overflow_the_models_dtype(path: Path):
    state = model_of().state_dict()
    state["head.bias"] = torch.full((3,), 1e300, dtype=torch.float64)
    save_file(state, path)
    assert "'head.bias'" in refusal(path)


def test_dtypes_that_do_not_fit(path: Path):
    state = model_of().state_dict()
    save_file({**state, "head.bias": torch.zeros(3, dtype=torch.int64)}, path)
    assert "'head.bias' is I64, the architecture has torch.float32" in refusal(path)
    count = next(name for name in state if name.endswith("num_batches_tracked"))
    save_file({**state, count: torch.tensor(1.5)}, path)
    assert f"'{count}' is F32, the architecture has torch.int64" in refusal(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_under_another_name(zipped: bool, path: Path):
    torch.save(model_of().state_dict(), path, _use_new_zipfile_serialization=zipped)
    text = refusal(path)
    assert "pickle" in text
    assert "dataloupe convert" in text


def test_missing_and_empty_files_and_folders(path: Path, tmp_path: Path):
    assert "No such file" in refusal(path)
    assert "Is a directory" in refusal(tmp_path)
    path.touch()
    assert "not a safetensors file" in refusal(path)


@pytest.mark.parametrize(
    "start",
    [
        struct.pack("<Q", 2**63) + b"{",
        struct.pack("<Q", 10**6) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 2) + b"{!",
        b"just a text file, really",
    ],
)
def test_absurd_headers(start: bytes, path: Path):
    path.write_bytes(start)
    assert "safetensors" in refusal(path) or "cut short" in refusal(path)


def test_a_huge_header_is_not_parsed(path: Path):
    length = 64 * 2**20
    with path.open("wb") as file:
        file.write(struct.pack("<Q", length) + b"{")
        file.truncate(8 + length)
    assert "header" in refusal(path)


def edited(path: Path, **changes: object) -> None:
    """Rewrite the entry of head.bias in the header."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    header["head.bias"].update(changes)
    new = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(new)) + new + content[8 + length :])


@pytest.mark.parametrize(
    "changes",
    [
        {"data_offsets": [0, 12]},
        {"data_offsets": [-12, 0]},
        {"data_offsets": [0, 2**62]},
        {"shape": [2**40]},
        {"shape": [-3]},
        {"dtype": "F99"},
        {"dtype": "F16"},
    ],
)
def test_false_headers(changes: dict[str, object], path: Path):
    save_file(model_of().state_dict(), path)
    edited(path, **changes)
    refusal(path)


@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_truncated_and_damaged_files_are_refused_or_load_completely(
    data: st.DataObject, tmp_path: Path
):
    """Never another exception, whatever the bytes."""
    path = tmp_path / "damaged.safetensors"
    save_weights(path, model_of(), "")
    content = bytearray(path.read_bytes())
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    refusal(path)
    (length,) = struct.unpack("<Q", content[:8])
    content[data.draw(st.integers(0, 7 + length))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        load_weights(path, model_of(1))
    except CheckpointError:
        refusal(path)
