"""How fast texts are turned into features by a MiniLM, compared with a lower bound on the cost.

*Bound* is a plain forward and full backward pass of the summed model outputs on the same batches,
the least that any method with gradients must do. *Primal* and *dual-wide* are the features of the
two solvers at the default width. Batches hold sentences of about one length
(`engine.training.length_buckets`), padded to the longest of the batch; *unsorted* is the primal on
sentences in the order of the file, all padded to the longest. All take turns within each round, in
rotating order, so that other load on the machine affects all of them. Results are medians over
rounds.
"""

from __future__ import annotations

import csv
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn

from benchmarks.text_study import minilm_folder, texts_folder
from engine.attribution.trak.kernel import feature_parameters, outer_layers
from engine.attribution.trak.make_plan import plan_gradients
from engine.attribution.trak.make_projection import make_projection
from engine.attribution.trak.new_examples import make_feature_extractor
from engine.attribution.trak.plan import Batch
from engine.attribution.trak.projection import features
from engine.attribution.trak.solver import Solver
from engine.models.calling import call
from engine.store.spec import TrakSpec
from engine.training.length_buckets import length_buckets

BATCH_SIZE = 64
N_SENTENCES = 512
LONGEST = 128
ROUNDS = 5


def featurise() -> dict[str, Any]:
    """Ratios of rates to the bound with one thread and two, and the memory that features take."""
    file = texts_folder(most_words=None) / "train.csv"
    model, batches, unsorted = workload(minilm_folder(), file, N_SENTENCES)
    found = {str(threads): compare(model, batches, unsorted, threads) for threads in (1, 2)}
    ratios = [
        found[threads]["ratio_vs_bound"][name]
        for threads in found
        for name in ("primal", "dual-wide")
    ]
    return {
        "featurise_vs_bound": min(ratios),
        "peak_memory_mib": found["1"]["peak_memory_mib"],
        "featurise": found,
        "batch_size": BATCH_SIZE,
        "sentences": N_SENTENCES,
        "tokens_a_sentence": round(_tokens(batches) / N_SENTENCES, 1),
    }


def workload(folder: Path, file: Path, n: int) -> tuple[nn.Module, list[Batch], list[Batch]]:
    """(model with a random head, batches sorted by length, the same sentences unsorted)."""
    torch.manual_seed(0)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        folder, local_files_only=True
    ).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    with file.open(encoding="utf-8", newline="") as opened:
        rows = list(csv.DictReader(opened))
    rows = [rows[i] for i in np.random.default_rng(0).permutation(len(rows))[:n]]
    classes = {name: k for k, name in enumerate(sorted({row["label"] for row in rows}))}
    tokens = tokenizer(
        [row["text"] for row in rows],
        padding=True,
        truncation=True,
        max_length=LONGEST,
        return_tensors="pt",
    )
    labels = torch.tensor([classes[row["label"]] % model.config.num_labels for row in rows])
    whole: Batch = {**tokens, "label": labels}
    lengths = tokens["attention_mask"].sum(1)
    in_order = [np.arange(n)[start : start + BATCH_SIZE] for start in range(0, n, BATCH_SIZE)]
    by_length = length_buckets(lengths.numpy(), BATCH_SIZE)
    return model, [_cut(whole, chosen) for chosen in by_length], [_of(whole, c) for c in in_order]


def _of(batch: Batch, rows: np.ndarray) -> Batch:
    return {name: tensor[rows] for name, tensor in batch.items()}


def _cut(batch: Batch, rows: np.ndarray) -> Batch:
    """These rows, without the padding that none of them needs."""
    longest = int(batch["attention_mask"][rows].sum(1).max())
    return {
        name: tensor[:, :longest] if tensor.ndim == 2 else tensor
        for name, tensor in _of(batch, rows).items()
    }


def _tokens(batches: list[Batch]) -> int:
    return sum(int(batch["attention_mask"].sum()) for batch in batches)


def margin(model: nn.Module, batch: Batch) -> Tensor:
    """The margin of the label."""
    logits = call(model, batch).logits
    own = nn.functional.one_hot(batch["label"], logits.shape[1]).bool()
    margins: Tensor = logits[own] - logits.masked_fill(own, -torch.inf).logsumexp(1)
    return margins


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def compare(
    model: nn.Module, batches: list[Batch], unsorted: list[Batch], threads: int
) -> dict[str, Any]:
    """Time all methods on all batches, taking turns."""
    torch.set_num_threads(threads)
    before, start = _peak(), time.perf_counter()
    plan = plan_gradients(model, margin, batches[-1])
    planning = time.perf_counter() - start
    spec = TrakSpec()
    projection = make_projection(plan, model, spec.width, spec.proj_dim, seed=0)
    wide = Solver("dual-wide", spec.width, spec.width, 1.0, "", 0.5, "plain")
    extractor = make_feature_extractor(model, margin, plan, wide, seed=0)

    def primal(given: list[Batch]) -> Iterator[Tensor]:
        return features(model, margin, iter(given), projection)

    def bound() -> None:
        for batch in batches:
            model.zero_grad()
            margin(model, batch).sum().backward()  # type: ignore[no-untyped-call]

    turns: dict[str, Callable[[], Any]] = {
        "primal": lambda: [*primal(batches)],
        "dual-wide": lambda: extractor.extract_all(iter(batches)),
        "unsorted": lambda: [*primal(unsorted)],
        "bound": bound,
    }
    turns["primal"]()
    peak = _peak() - before
    n = sum(len(batch["label"]) for batch in batches)
    rates: dict[str, list[float]] = {name: [] for name in turns}
    names = list(turns)
    for number in range(ROUNDS):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            start = time.perf_counter()
            turns[name]()
            rates[name].append(n / (time.perf_counter() - start))
    median = {name: statistics.median(values) for name, values in rates.items()}
    return {
        "ratio_vs_bound": {name: round(median[name] / median["bound"], 3) for name in names[:-1]},
        "examples_per_second": {name: round(rate, 1) for name, rate in median.items()},
        "slowest_and_fastest_round": {
            name: [round(min(values), 1), round(max(values), 1)] for name, values in rates.items()
        },
        "peak_memory_mib": round(peak),
        "planning_seconds": round(planning, 2),
        "n_parameters": plan.n_parameters,
        "parameters_without_a_rule": list(plan.untapped),
        "exact_layers": list(outer_layers(plan, model)),
        "projected_parameters": len(feature_parameters(plan, model)),
        "rounds": ROUNDS,
    }
