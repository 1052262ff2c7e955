"""Checkpoints as people save them: read into the model they belong to, or refused in one line."""

from __future__ import annotations

import argparse
import functools
import json
import pathlib
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file, save_model
from torch import Tensor, nn

import engine.exchange.convert
from engine.exchange.convert import convert, default_target
from engine.exchange.uploads.header import Entry, read_header
from engine.exchange.uploads.match import Architecture, match
from engine.models import build_model
from engine.running.processes import run_jobs
from engine.store.errors import CheckpointError, DataloupeError, UploadError
from engine.store.records import Dataset
from engine.store.spec import AlgorithmSpec
from engine.training.weights import load_weights

State = dict[str, Tensor]
SHAPE, CLASSES = [1, 8, 8], 3
ENCODING = {"shape": SHAPE}


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Convert without a worker process, which takes seconds."""
    monkeypatch.setattr(engine.exchange.convert, "_limit_this_process", lambda source: None)
    monkeypatch.setattr(
        engine.exchange.convert,
        "run_jobs",
        lambda f, jobs, workers, done: run_jobs(f, jobs, 0, done),
    )


def built(seed: int = 0, classes: int = CLASSES) -> nn.Module:
    return build_model("resnet-small", {"width": 2}, ENCODING, classes, seed)


def prefixed(prefix: str, state: Mapping[str, Tensor] | None = None) -> State:
    state = built().state_dict() if state is None else state
    return {prefix + name: tensor.clone() for name, tensor in state.items()}


def without(end: str) -> State:
    return {name: t for name, t in built().state_dict().items() if not name.endswith(end)}


def averaged(state: State) -> State:
    return {name: tensor * 2 for name, tensor in state.items()}


def inside_trunk() -> State:
    """The trunk was compiled, and its first stage was wrapped for checkpointing."""
    return {
        name.replace("trunk.0.", "trunk._orig_mod.0._checkpoint_wrapped_module.").replace(
            "trunk.1", "trunk._orig_mod.1"
        ): tensor
        for name, tensor in built().state_dict().items()
    }


READ: dict[str, tuple[Callable[[], State], str]] = {
    "plain": (lambda: prefixed(""), ""),
    "data-parallel": (lambda: nn.DataParallel(built()).state_dict(), ""),
    "compiled": (lambda: prefixed("_orig_mod."), ""),
    "compiled-data-parallel": (lambda: prefixed("_orig_mod.module."), ""),
    "data-parallel-compiled": (lambda: prefixed("module._orig_mod."), ""),
    "lightning-attribute": (lambda: prefixed("model."), ""),
    "lightning-compiled-attribute": (lambda: prefixed("model._orig_mod."), ""),
    "lightning-nested-wrappers": (lambda: prefixed("module.net.module._orig_mod.model."), ""),
    "any-other-attribute": (lambda: prefixed("my_classifier_v2."), ""),
    "student-alone": (lambda: prefixed("student."), ""),
    "fsdp": (lambda: prefixed("_fsdp_wrapped_module._checkpoint_wrapped_module."), ""),
    "compiled-submodule": (inside_trunk, ""),
    "averaged-model": (lambda: torch.optim.swa_utils.AveragedModel(built()).state_dict(), ""),
    "averaged-compiled": (
        lambda: {**prefixed("module._orig_mod."), "n_averaged": torch.tensor(3)},
        "",
    ),
    "lightning-with-metrics-and-loss": (
        lambda: {
            **prefixed("model."),
            "loss.weight": torch.ones(CLASSES),
            "accuracy.tp": torch.tensor(5),
        },
        "'accuracy.tp', 'loss.weight' beside the model (model.) ignored",
    ),
    "student-beside-a-larger-teacher": (
        lambda: {**prefixed("student."), **prefixed("teacher.", built(0, 7).state_dict())},
        "beside the model (student.) ignored",
    ),
    "no-batch-counters": (lambda: without("num_batches_tracked"), ""),
    "half-precision": (
        lambda: {
            name: t.half() if t.is_floating_point() else t
            for name, t in built().half().state_dict().items()
        },
        "",
    ),
}


@pytest.mark.input_case
@pytest.mark.parametrize("through", ["file", "convert"])
@pytest.mark.parametrize("case", READ)
def test_names_of_any_wrapper_are_read(case: str, through: str, tmp_path: Path) -> None:
    make, note = READ[case]
    path = tmp_path / "model.safetensors"
    if through == "file":
        save_file({name: tensor.contiguous().clone() for name, tensor in make().items()}, path)
    else:
        torch.save(make(), tmp_path / "model.pth")
        convert(tmp_path / "model.pth", path)
    model = built(1)
    notes = " ".join(load_weights(path, model))
    assert note in notes if note else not notes
    for name, tensor in built().state_dict().items():
        wanted = tensor.half().float() if "half" in case and tensor.is_floating_point() else tensor
        assert torch.equal(model.state_dict()[name], wanted), name
    assert match(read_header(path, "file", 2**30), "file", DATASET, {}) == Architecture(
        "resnet-small", {"width": 2}
    )


DATASET = Dataset(
    fingerprint="",
    source="",
    task="image-classification",
    views=["picture"],
    labels="class",
    outcomes="classes",
    output="margin",
    output_title="",
    width=3,
    n_train=9,
    n_test=9,
    classes=list("abc"),
    encoding=ENCODING,
    cell=8,
    warnings=[],
)


def test_a_model_in_a_wrapper_reads_a_bare_file(tmp_path: Path) -> None:
    """The architecture, not the file, has the prefix."""
    path = tmp_path / "bare.safetensors"
    save_file(prefixed(""), path)
    model = nn.ModuleDict({"net": nn.ModuleDict({"backbone": built(1)})})
    load_weights(path, model)
    assert all(
        torch.equal(model["net"]["backbone"].state_dict()[n], t) for n, t in prefixed("").items()
    )


MISREAD: dict[str, tuple[Callable[[], State], list[str]]] = {
    "student-and-teacher": (
        lambda: {**prefixed("student."), **prefixed("teacher.")},
        ["the model 2 times", "'student.' and 'teacher.'", "--key student"],
    ),
    "model-and-moving-average": (
        lambda: {**prefixed(""), **prefixed("ema.")},
        ["no prefix and 'ema.'", "--key ema", "--key ."],
    ),
    "three-copies": (
        lambda: {**prefixed("model."), **prefixed("ema_model."), **prefixed("swa.module.")},
        ["3 times"],
    ),
    "a-larger-model": (
        lambda: {**prefixed("model."), "model.trunk.9.weight": torch.zeros(2)},
        ["'model.trunk.9.weight' unexpected"],
    ),
    "parts-beside-a-part": (
        lambda: {**prefixed("decoder."), "encoder.weight": torch.zeros(2)},
        ["'encoder.weight' unexpected"],
    ),
    "without-running-mean": (lambda: without("running_mean"), ["running_mean' and 4 more missing"]),
    "a-head-of-another-size": (
        lambda: prefixed("module.", built(0, 10).state_dict()),
        ["a head of 10 outputs where this study needs 3"],
    ),
}


@pytest.mark.input_case
@pytest.mark.parametrize("case", MISREAD)
def test_what_cannot_be_told_apart_is_refused(case: str, tmp_path: Path) -> None:
    make, words = MISREAD[case]
    path = tmp_path / "model.safetensors"
    save_file(make(), path)
    model = built(1)
    with pytest.raises(CheckpointError) as caught:
        load_weights(path, model)
    for word in words:
        assert word in str(caught.value)
    assert all(torch.equal(model.state_dict()[n], t) for n, t in built(1).state_dict().items())
    with pytest.raises(UploadError):
        match(read_header(path, "file", 2**30), "file", DATASET, {})


# --- fine-tuning ----------------------------------------------------------------------------------


@pytest.mark.input_case
@pytest.mark.parametrize(
    ("reset", "state"),
    [
        (["head"], lambda: built(0, 10).state_dict()),
        (["head."], lambda: prefixed("model.", built(0, 10).state_dict())),
        (["head.weight", "head.bias"], lambda: built(0, 10).state_dict()),
        (["head"], lambda: {n: t for n, t in built().state_dict().items() if "head" not in n}),
        (["head"], lambda: {**prefixed(""), "head.extra.weight": torch.zeros(2)}),
    ],
    ids=["other-size", "other-size-and-prefix", "by-names", "no-head-in-file", "other-head"],
)
def test_reset_keeps_the_fresh_head(
    reset: list[str], state: Callable[[], State], tmp_path: Path
) -> None:
    path = tmp_path / "pretrained.safetensors"
    save_file(dict(state()), path)
    model, fresh = built(1), built(1).state_dict()
    (note,) = load_weights(path, model, reset)
    assert note.startswith("head.weight, head.bias start from a fresh initialization")
    for name, tensor in built().state_dict().items():
        wanted = fresh[name] if name.startswith("head") else tensor
        assert torch.equal(model.state_dict()[name], wanted)


def test_without_reset_it_is_suggested(tmp_path: Path) -> None:
    path = tmp_path / "pretrained.safetensors"
    save_file(built(0, 10).state_dict(), path)
    with pytest.raises(CheckpointError, match=r'set reset = \["head"\]'):
        load_weights(path, built(1), [])
    save_file({n: t for n, t in prefixed("").items() if "head" not in n}, path)
    with pytest.raises(CheckpointError, match=r'set reset = \["head"\]'):
        load_weights(path, built(1), [])
    with pytest.raises(CheckpointError, match=r"names no part.*Did you mean 'head'"):
        load_weights(path, built(1), ["heads"])


# --- tied weights ---------------------------------------------------------------------------------


class Tied(nn.Module):
    def __init__(self, tied: bool = True) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5, bias=False)
        if tied:
            self.head.weight = self.embedding.weight


@pytest.mark.input_case
@pytest.mark.parametrize("case", ["save-model", "save-model-untied", "one-name", "both-names"])
def test_tied_weights(case: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    source, path = Tied(), tmp_path / "tied.safetensors"
    weight = source.embedding.weight.data
    if case.startswith("save-model"):
        save_model(source, str(path))
        assert set(read_header(path, "file", 2**30)) == {"embedding.weight", "head.weight"}
    elif case == "one-name":
        save_file({"head.weight": weight}, path)
    else:
        save_file({"head.weight": weight, "embedding.weight": weight.clone()}, path)
    model = Tied(tied="untied" not in case)
    assert load_weights(path, model) == []
    assert torch.equal(model.embedding.weight, weight)
    assert torch.equal(model.head.weight, weight)
    if case == "save-model":
        converted = convert(path, tmp_path / "whole.safetensors")
        assert converted.tensors == 2


def test_tied_weights_that_differ_are_refused(tmp_path: Path) -> None:
    save_file(Tied(tied=False).state_dict(), tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match="are one tensor in the architecture, but differ"):
        load_weights(tmp_path / "a.safetensors", Tied())


# --- whole checkpoints of frameworks --------------------------------------------------------------


class Settings(dict):  # type: ignore[type-arg]
    """A mapping of a class of its own, like Lightning's AttributeDict."""


def lightning() -> dict[str, Any]:
    return {
        "epoch": 3,
        "global_step": 120,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": OrderedDict(prefixed("model.")),
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 3}}}},
        "callbacks": {
            "ModelCheckpoint{'monitor': 'val_loss'}": {
                "best_model_score": torch.tensor(0.1),
                "best_k_models": {"a.ckpt": torch.tensor(0.1)},
                "dirpath": pathlib.PurePosixPath("/logs"),
            }
        },
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": []}],
        "lr_schedulers": [{"last_epoch": 3, "_last_lr": [0.1]}],
        "hparams_name": "kwargs",
        "hyper_parameters": {
            "lr": 0.1,
            "args": argparse.Namespace(width=2),
            "loss": nn.CrossEntropyLoss(),
            "settings": Settings(depth=3),
            "defaults": defaultdict(list, a=[1]),
            "recent": deque([1, 2], maxlen=3),
            "activation": functools.partial(nn.ReLU, inplace=True),
            "dtype": torch.float32,
        },
    }


WRAPPED: dict[str, tuple[Callable[[], Any], str | None]] = {
    "lightning": (lightning, None),
    "weights": (lambda: {"weights": prefixed(""), "epoch": 3}, None),
    "weights-with-key": (lambda: {"weights": prefixed(""), "epoch": 3}, "weights"),
    "model-with-key": (lambda: {"model": prefixed("module."), "args": Settings()}, "model"),
    "state-dict-with-key": (lambda: {"state_dict": prefixed("")}, "state_dict"),
    "own-word": (lambda: {"info": {"acc": 0.9}, "my_net": prefixed("")}, None),
    "deep": (lambda: {"a": {"b": {"state_dict": prefixed("model.")}}}, "a.b"),
    "moving-average-beside": (
        lambda: {"state_dict": averaged(prefixed("")), "state_dict_ema": prefixed("")},
        "state_dict_ema",
    ),
    "model-beside-its-optimizer": (
        lambda: {"net": prefixed(""), "optimizer": {"state": {"w": {"avg": torch.zeros(2)}}}},
        None,
    ),
    "model-beside-metrics": (
        lambda: {"model": prefixed(""), "metrics": {"accuracy": torch.tensor(0.9)}},
        None,
    ),
    "prefix-as-key": (
        lambda: {**prefixed("student."), **averaged(prefixed("teacher."))},
        "student",
    ),
    "nested-prefix-as-key": (
        lambda: {"state_dict": {**prefixed("net.ema."), **averaged(prefixed("net.raw."))}},
        "state_dict.net.ema",
    ),
    "no-prefix-as-key": (lambda: {**prefixed(""), **averaged(prefixed("ema."))}, "."),
}


@pytest.mark.input_case
@pytest.mark.parametrize("case", WRAPPED)
def test_checkpoints_of_frameworks_are_converted(case: str, tmp_path: Path) -> None:
    make, key = WRAPPED[case]
    source = tmp_path / "last.ckpt"
    torch.save(make(), source)
    model = built(1)
    with pytest.raises(CheckpointError, match=r"`dataloupe convert last\.ckpt`"):
        load_weights(source, model)
    target = default_target(source)
    convert(source, target, key)
    load_weights(target, model)
    for name, tensor in built().state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor)


@pytest.mark.input_case
@pytest.mark.parametrize(
    ("content", "key", "words"),
    [
        (
            lambda: {"state_dict": prefixed(""), "state_dict_ema": prefixed("")},
            None,
            ["--key state_dict or --key state_dict_ema"],
        ),
        (
            lambda: {"state_dict": prefixed(""), "callbacks": {"EMA": {"average": prefixed("")}}},
            None,
            ["--key state_dict or --key callbacks.EMA.average"],
        ),
        (lambda: {"netG": prefixed(""), "netD": averaged(prefixed(""))}, None, ["netG", "netD"]),
        (
            lambda: {"weights": prefixed("")},
            "state_dict",
            ["nothing under --key state_dict", "weights"],
        ),
        (lambda: built(), None, ["objects other than tensors"]),
        (lambda: {"model": built()}, "model", ["objects other than tensors"]),
    ],
    ids=["ema", "ema-callback", "gan", "wrong-key", "whole-module", "whole-module-with-key"],
)
def test_a_choice_is_asked_for(
    content: Callable[[], Any], key: str | None, words: list[str], tmp_path: Path
) -> None:
    torch.save(content(), tmp_path / "a.pt")
    with pytest.raises(DataloupeError) as caught:
        convert(tmp_path / "a.pt", tmp_path / "a.safetensors", key)
    for word in words:
        assert word in str(caught.value)
    assert not (tmp_path / "a.safetensors").exists()


class Shell:
    """Runs a function when it is unpickled, if the unpickler calls what it names."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


@pytest.mark.parametrize(
    "call",
    [
        (exec, "open('ran', 'w')"),
        (eval, "open('ran', 'w')"),
        (open, "ran", "w"),
        (Path.touch, Path("ran")),
    ],
    ids=["exec", "eval", "open", "touch"],
)
def test_settings_are_never_run(
    call: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": prefixed(""), "hyper_parameters": Shell(*call)}, "a.ckpt")
    try:
        convert(Path("a.ckpt"), Path("a.safetensors"))
    except CheckpointError as error:
        assert "objects other than tensors" in str(error)  # noqa: PT017
    assert not Path("ran").exists()


# --- checkpoints in parts -------------------------------------------------------------------------


def in_parts(folder: Path, end: str) -> Path:
    """A checkpoint in two parts with an index, as transformers saves large ones."""
    names = list(built().state_dict())
    parts = {f"model-0000{n}-of-00002{end}": names[n - 1 :: 2] for n in (1, 2)}
    for file, some in parts.items():
        state = {name: built().state_dict()[name] for name in some}
        if end == ".safetensors":
            save_file(state, folder / file)
        else:
            torch.save(state, folder / file)
    index = folder / f"model{end}.index.json"
    weight_map = {name: file for file, some in parts.items() for name in some}
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return index


@pytest.mark.input_case
@pytest.mark.parametrize("end", [".safetensors", ".bin"])
def test_parts_are_joined(end: str, tmp_path: Path) -> None:
    index, model = in_parts(tmp_path, end), built(1)
    with pytest.raises(
        CheckpointError, match=r"dataloupe convert model\S+\.index\.json. joins them"
    ):
        load_weights(index, model)
    convert(index, default_target(index))
    load_weights(tmp_path / "model.safetensors", model)
    assert all(torch.equal(model.state_dict()[n], t) for n, t in built().state_dict().items())
    if end == ".safetensors":
        with pytest.raises(CheckpointError, match="one part of several"):
            load_weights(tmp_path / "model-00001-of-00002.safetensors", model)


@pytest.mark.input_case
@pytest.mark.parametrize(
    ("weight_map", "words"),
    [
        ({"a": "../secret.safetensors"}, "not a file beside it"),
        ({"a": "model-00009-of-00002.safetensors"}, "which is missing"),
        ({"a": "model-00001-of-00002.safetensors"}, "'a', which no part holds"),
        (["a"], "no `weight_map`"),
    ],
    ids=["elsewhere", "missing-part", "missing-tensor", "damaged"],
)
def test_broken_indexes_are_refused(weight_map: Any, words: str, tmp_path: Path) -> None:
    index = in_parts(tmp_path, ".safetensors")
    index.write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(CheckpointError, match=words):
        convert(index, tmp_path / "out.safetensors")


def test_uploads_name_both_copies() -> None:
    entries = {
        name: Entry("F32", tuple(t.shape), 0, 0)
        for prefix in ("student.", "teacher.")
        for name, t in prefixed(prefix).items()
    }
    with pytest.raises(UploadError, match=r"2 times, under 'student\.' and 'teacher\.'"):
        match(entries, "a.safetensors", DATASET, {"own": algorithm_of_width_2()})


def algorithm_of_width_2() -> AlgorithmSpec:
    return AlgorithmSpec(architecture="resnet-small", architecture_options={"width": 2})
