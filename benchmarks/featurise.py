"""How fast training examples are turned into features, compared with traker and a lower bound.

    python -m benchmarks.featurise --json [--save]

*Ours* is the factorized projection to proj_dim 2048. *Bound* is a plain forward and full backward
pass of the summed model outputs, the least that any method with gradients must do. *Traker* is
`featurize` of traker 0.3.2 with its BasicProjector. All use batch size 128 and two threads. They
take turns within each round, in rotating order, so that other load on the machine affects all of
them. Results are medians over rounds.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from benchmarks._report import report
from benchmarks.rivals import BATCH_SIZE, PROJ_DIM, make_traker
from benchmarks.workload import CNN, N_CLASSES, batches_of, checkpoint, task
from engine.attribution.trak.make_plan import plan_gradients
from engine.attribution.trak.make_projection import make_projection
from engine.attribution.trak.projection import project
from engine.models import build_model
from engine.models.ready import in_fast_layout
from engine.store.spec import TrakSpec
from engine.training.outputs import to_device

if TYPE_CHECKING:
    from torch import nn

    from engine.attribution.trak.plan import Batch

THREADS = 2


def measure() -> dict[str, Any]:
    """Rates in examples/s and their ratios, for the CNN of DESIGN section 6 and a ResNet-9."""
    torch.set_num_threads(THREADS)
    batch = next(batches_of("train", BATCH_SIZE)())
    small = compare(checkpoint(CNN, 0), batch, rounds=8, batches=40)
    large = compare(*resnet9(), rounds=4, batches=3)
    return {**small, "resnet9": large, "batch_size": BATCH_SIZE, "proj_dim": PROJ_DIM}


def resnet9() -> tuple[nn.Module, Batch]:
    """A ResNet-9 of 2.3 M parameters and a batch of noise, 3 × 32 × 32."""
    model = build_model("resnet9", {}, {"shape": [3, 32, 32]}, N_CLASSES, seed=0)
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randn(BATCH_SIZE, 3, 32, 32, generator=generator)
    labels = torch.randint(N_CLASSES, (BATCH_SIZE,), generator=generator)
    return to_device(model, "cpu").eval(), {"input": in_fast_layout(pictures), "label": labels}


def _rotated(names: list[str], by: int) -> list[str]:
    return names[by % len(names) :] + names[: by % len(names)]


def compare(model: nn.Module, batch: Batch, rounds: int, batches: int) -> dict[str, Any]:
    """Time all methods, taking turns: per round `batches` batches of each, but one of traker."""
    output = task().model_output
    plan = plan_gradients(model, output, batch)
    spec = TrakSpec()
    narrow = make_projection(plan, model, PROJ_DIM, PROJ_DIM, seed=0)
    wide = make_projection(plan, model, spec.width, PROJ_DIM, seed=0)
    features = torch.empty(BATCH_SIZE, PROJ_DIM)

    def bound() -> None:
        model.zero_grad()
        output(model, batch).sum().backward()  # type: ignore[no-untyped-call]

    with tempfile.TemporaryDirectory() as folder:
        traker = make_traker(model, rounds * BATCH_SIZE, folder)
        traker.load_checkpoint(model.state_dict(), model_id=0)
        turns: dict[str, tuple[Callable[[], Any], int]] = {
            "ours": (lambda: project(model, output, batch, narrow, features), batches),
            "ours_wide": (lambda: project(model, output, batch, wide, features), batches),
            "bound": (bound, batches),
            "traker": (
                lambda: traker.featurize([batch["input"], batch["label"]], num_samples=BATCH_SIZE),
                1,
            ),
        }
        rates: dict[str, list[float]] = {name: [] for name in turns}
        for number in range(rounds):
            for name in _rotated(list(turns), number):
                turn, times = turns[name]
                if times > 1:
                    turn()  # warm up: the caches still hold data of the previous method
                start = time.perf_counter()
                for _ in range(times):
                    turn()
                rates[name].append(times * BATCH_SIZE / (time.perf_counter() - start))
    median = {name: statistics.median(values) for name, values in rates.items()}
    return {
        "ratio_vs_traker": round(median["ours"] / median["traker"], 1),
        "ratio_vs_bound": round(median["ours"] / median["bound"], 3),
        "examples_per_second": {name: round(rate, 1) for name, rate in median.items()},
        "slowest_and_fastest_round": {
            name: [round(min(values), 1), round(max(values), 1)] for name, values in rates.items()
        },
        "n_parameters": plan.n_parameters,
        "width_of_ours_wide": min(spec.width, plan.n_parameters),
        "rounds": rounds,
        "batches_a_round": {name: times for name, (_, times) in turns.items()},
    }


if __name__ == "__main__":
    report("featurise", measure, __doc__ or "")
