"""Converting `.pt` to safetensors: common layouts are found, all but tensors is refused."""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import engine.exchange.convert
from engine.exchange.convert import convert
from engine.models import build_model
from engine.running.processes import run_jobs
from engine.store.errors import CheckpointError
from engine.training.weights import load_weights


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Convert without a worker process, which takes seconds, except in tests named so."""
    if "worker" in request.node.name:
        return
    monkeypatch.setattr(engine.exchange.convert, "_limit_this_process", lambda source: None)
    monkeypatch.setattr(
        engine.exchange.convert,
        "run_jobs",
        lambda f, jobs, workers, done: run_jobs(f, jobs, 0, done),
    )


STATE = {"fc.weight": torch.arange(6.0).reshape(2, 3), "fc.bias": torch.zeros(2)}


def saved(content: object, folder: Path, name: str = "model.pt", **options: bool) -> Path:
    path = folder / name
    torch.save(content, path, **options)
    return path


def equal(path: Path, state: dict[str, torch.Tensor]) -> bool:
    found = load_file(path)
    return found.keys() == state.keys() and all(
        torch.equal(found[k], state[k]) and found[k].dtype == state[k].dtype for k in state
    )


@pytest.mark.parametrize(
    ("wrap", "found_in"),
    [
        (lambda state: state, ()),
        (OrderedDict, ()),
        (lambda state: {"state_dict": state, "epoch": 3, "lr": 0.1}, ("state_dict",)),
        (lambda state: {"model": state, "optimizer": {"state": {}}}, ("model",)),
        (lambda state: {"model_state_dict": state}, ("model_state_dict",)),
        (lambda state: {"model": {"state_dict": state}}, ("model", "state_dict")),
    ],
)
def test_nested_weights_are_found(wrap: object, found_in: tuple[str, ...], tmp_path: Path):
    source, target = saved(wrap(STATE), tmp_path), tmp_path / "out" / "model.safetensors"
    summary = convert(source, target)
    assert equal(target, STATE)
    assert (summary.target, summary.tensors, summary.parameters) == (target, 2, 8)
    assert summary.found_in == found_in


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_wrapper_prefixes_are_removed(prefix: str, tmp_path: Path):
    wrapped = {prefix + name: tensor for name, tensor in STATE.items()}
    convert(saved(wrapped, tmp_path), tmp_path / "a.safetensors")
    assert equal(tmp_path / "a.safetensors", STATE)
    save_file(wrapped, tmp_path / "wrapped.safetensors")
    convert(tmp_path / "wrapped.safetensors", tmp_path / "b.safetensors")
    assert equal(tmp_path / "b.safetensors", STATE)


def test_shared_and_strided_tensors_of_any_dtype_are_converted(tmp_path: Path):
    whole = torch.arange(12.0).reshape(3, 4)
    state = {
        "a": whole,
        "same": whole,
        "transposed": whole.T,
        "part": whole[:, 1:3],
        "half": torch.ones(2, dtype=torch.bfloat16),
        "count": torch.tensor(4),
        "pictures": torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last),
    }
    convert(saved(state, tmp_path), tmp_path / "a.safetensors")
    assert equal(tmp_path / "a.safetensors", state)


def test_bin_files_in_the_legacy_format_are_converted(tmp_path: Path):
    source = saved(STATE, tmp_path, "pytorch_model.bin", _use_new_zipfile_serialization=False)
    convert(source, tmp_path / "a.safetensors")
    assert equal(tmp_path / "a.safetensors", STATE)


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch was-here",)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({**STATE, "epoch": 3}, ["'epoch' = int", "model.state_dict()"]),
        ({"state_dict": {**STATE, "name": "x"}}, ["under state_dict", "'name' = str"]),
        ({"a": {"b": {"c": torch.zeros(1), "d": 1}}}, ["'a' = dict"]),
        ({1: torch.zeros(1)}, ["1 = Tensor"]),
        ([torch.zeros(1)], ["list"]),
        ({}, ["dict", "no named weights"]),
        ({"a": torch.zeros(3).to_sparse()}, ["'a'", "sparse"]),
        ({"model": torch.nn.Linear(2, 2)}, ["objects other than tensors", "Linear"]),
        ({"weight": Evil()}, ["objects other than tensors", "system"]),
        ({"module.a": torch.zeros(1), "a": torch.zeros(1)}, ["both with and without"]),
    ],
)
def test_anything_but_named_tensors_is_refused_by_name(
    content: object, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    target = tmp_path / "out.safetensors"
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError) as caught:
        convert(saved(content, tmp_path), target)
    for word in [*words, "model.pt"]:
        assert word in str(caught.value)
    assert not target.exists()
    assert not (tmp_path / "was-here").exists()


def test_a_single_tensor_gets_a_name(tmp_path: Path):
    scores = torch.arange(6.0).reshape(2, 3)
    converted = convert(saved(scores, tmp_path), tmp_path / "out.safetensors")
    assert (converted.tensors, converted.parameters) == (1, 6)
    assert torch.equal(load_file(converted.target)["tensor"], scores)


def test_files_that_are_not_weights_are_refused(tmp_path: Path):
    target = tmp_path / "out.safetensors"
    text = tmp_path / "model.pt"
    for content in (b"", b"hello, I am a text file", b"PK\x03\x04 and then nothing"):
        text.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"model\.pt"):
            convert(text, target)
    source = saved(STATE, tmp_path)
    source.write_bytes(source.read_bytes()[:-300])
    with pytest.raises(CheckpointError, match=r"model\.pt cannot be read as weights"):
        convert(source, target)
    with pytest.raises(CheckpointError, match="does not exist or is not a file"):
        convert(tmp_path / "none.pt", target)
    with pytest.raises(CheckpointError, match="the source itself"):
        convert(source, source)


@pytest.mark.filterwarnings("ignore")
def test_torchscript_is_refused(tmp_path: Path):
    source = tmp_path / "scripted.pt"
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), source)
    with pytest.raises(CheckpointError, match="TorchScript"):
        convert(source, tmp_path / "out.safetensors")


def test_a_limited_worker_converts_weights_that_a_model_loads(tmp_path: Path):
    encoding = {"shape": [1, 8, 8]}
    model, other = (build_model("resnet-small", {"width": 2}, encoding, 3, seed) for seed in (0, 1))
    source = saved({"state_dict": torch.nn.DataParallel(model).state_dict()}, tmp_path)
    target = tmp_path / "model.safetensors"
    assert convert(source, target).tensors == len(model.state_dict())
    load_weights(target, other)
    for name, tensor in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor)


def test_the_worker_refuses_a_tensor_much_larger_than_its_file(tmp_path: Path):
    """With a stride of 0, a tiny file holds a huge tensor: the memory limit stops it."""
    source = saved({"bomb": torch.zeros(1).expand(2**40)}, tmp_path)
    with pytest.raises(CheckpointError, match=r"model\.pt holds tensors too large"):
        convert(source, tmp_path / "out.safetensors")
