"""What needs a GPU: whether it agrees with a CPU, how fast features are, and checkpoints in flight.

    python -m benchmarks.gpu --json [--save]

Runs on the GPU that torch sees. `DATALOUPE_DEVICE=cpu` runs the same without one, which only shows
that it runs. `DATALOUPE_GPU_SIZE=tiny` takes a minute on a CPU.

- `agreement.MODEL`: largest difference between the device's features and the CPU's, relative to the
  largest feature, with the same weights and projection.
- `featurise_vs_bound.MODEL.PRECISION`: rate of features relative to a forward and a full backward
  pass in float32; `examples_per_second`, medians of rounds; `peak_mib`, memory of the device.
- `solve_seconds`: of the dual's system, in float32; `solve_tflops` counts n³/3.
- `attribution_seconds.WORKERS`: of the trak stage of a study with several checkpoints, by how many
  are in flight; `in_flight_speedup` is the best of them against one.
"""

from __future__ import annotations

import os
import shutil
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from benchmarks._report import log, report
from benchmarks._study import built
from benchmarks.workload import task
from engine.attribution.trak.dual import solve
from engine.attribution.trak.kernel import Kernel
from engine.attribution.trak.make_plan import plan_gradients
from engine.attribution.trak.make_projection import make_projection
from engine.attribution.trak.plan import Batch
from engine.attribution.trak.projection import project
from engine.attribution.trak.solver import ROUNDING
from engine.build.run import Run
from engine.build.stages import trak
from engine.models import build_model
from engine.models.ready import in_fast_layout
from engine.running.processes import pick_device
from engine.store import layout
from engine.tasks.precision import in_precision
from engine.training.outputs import to_device

PROJ_DIM = 2_048


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        side: Of the pictures of noise.
        classes: That they have.
        batch: Examples at a time.
        rounds: Of timing; the first warms up.
        solved: n of the dual's system.
        train: Training pictures of the study with several checkpoints.
        checkpoints: Of that study.
        workers: How many are in flight.
    """

    side: int = 224
    classes: int = 1_000
    batch: int = 128
    rounds: int = 6
    solved: int = 20_000
    train: int = 5_000
    checkpoints: int = 8
    workers: tuple[int, ...] = (1, 2, 4)


SIZES = {
    "whole": Size(),
    "tiny": Size(32, 10, 8, 2, 200, 100, 2, (1,)),
}
MODELS = ("resnet9", "resnet-small")


def measure() -> dict[str, Any]:
    size = SIZES[os.environ.get("DATALOUPE_GPU_SIZE", "whole")]
    device = pick_device(os.environ.get("DATALOUPE_DEVICE", "cuda"))
    found = {name: features_of(name, size, device) for name in MODELS}
    return {
        "on": torch.cuda.get_device_name() if device == "cuda" else device,
        **{key: {name: one[key] for name, one in found.items()} for key in found[MODELS[0]]},
        **solving(size.solved, device),
        **in_flight(size, device),
    }


def features_of(name: str, size: Size, device: str) -> dict[str, Any]:
    """Agreement and rates of one model on noise."""
    shape = [3, size.side, size.side]
    model = build_model(name, {}, {"shape": shape}, size.classes, seed=0)
    model = to_device(model, "cpu").eval()
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randn(size.batch, *shape, generator=generator)
    labels = torch.randint(size.classes, (size.batch,), generator=generator)
    batch: Batch = {"input": in_fast_layout(pictures), "label": labels}
    output = task().model_output
    few = {key: tensor[:8] for key, tensor in batch.items()}
    plan = plan_gradients(model, output, few)
    on_cpu = project(model, output, few, make_projection(plan, model, PROJ_DIM, PROJ_DIM, seed=0))
    model = to_device(model, device)
    batch = {key: tensor.to(device) for key, tensor in batch.items()}
    projection = make_projection(plan, model, PROJ_DIM, PROJ_DIM, seed=0)
    found = project(model, output, {key: t[:8] for key, t in batch.items()}, projection).cpu()
    turns: dict[str, Callable[[], Any]] = {"bound": lambda: _full_pass(model, batch)}
    for precision in ROUNDING:
        value = in_precision(task(), precision).model_output
        turns[precision] = partial(project, model, value, batch, projection)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    rates = {turn: _rate(run, size, device) for turn, run in turns.items()}
    log(f"{name}: {rates}")
    return {
        "agreement": float((found - on_cpu).abs().max() / on_cpu.abs().max()),
        "featurise_vs_bound": {p: round(rates[p] / rates["bound"], 3) for p in ROUNDING},
        "examples_per_second": {turn: round(rate, 1) for turn, rate in rates.items()},
        "peak_mib": round(torch.cuda.max_memory_allocated() / 2**20) if device == "cuda" else None,
    }


def _full_pass(model: nn.Module, batch: Batch) -> None:
    model.zero_grad()
    task().model_output(model, batch).sum().backward()  # type: ignore[no-untyped-call]


def _rate(run: Callable[[], Any], size: Size, device: str) -> float:
    return size.batch / _median_seconds(run, size.rounds, device)


def _median_seconds(run: Callable[[], Any], rounds: int, device: str) -> float:
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def solving(n: int, device: str) -> dict[str, Any]:
    """Time of one checkpoint's system, with a kernel of noise."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(n, 256, generator=generator).to(device)

    def run() -> None:
        solve(Kernel(features @ features.T, features @ features[: n // 10].T), 1.5)

    seconds = _median_seconds(run, 3, device)
    return {
        "solved": n,
        "solve_seconds": round(seconds, 3),
        "solve_tflops": round(n**3 / 3 / seconds / 1e12, 3),
    }


def in_flight(size: Size, device: str) -> dict[str, Any]:
    """Time of the trak stage by the number of checkpoints that the device works on at once."""
    study = built(
        f"gpu-{size.train}",
        f"""\
name = "Checkpoints in flight"
[data]
source = "fashion-mnist"
train_limit = {size.train}
test_limit = {size.train // 5}
[algorithms.cnn]
architecture = "resnet-small"
epochs = 1
checkpoints = {size.checkpoints}
""",
    )
    seconds = {}
    for workers in size.workers:
        for folder in layout.stage_folders(study.root, "trak", "cnn"):
            shutil.rmtree(folder)
        start = time.perf_counter()
        trak.run(Run(study, device, workers, lambda progress: None), "cnn")
        seconds[str(workers)] = time.perf_counter() - start
    return {
        "attribution_seconds": {name: round(one, 1) for name, one in seconds.items()},
        "in_flight_speedup": round(seconds[str(size.workers[0])] / min(seconds.values()), 2),
    }


if __name__ == "__main__":
    report("gpu", measure, __doc__ or "")
