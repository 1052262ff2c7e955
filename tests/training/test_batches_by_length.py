"""Batches of padded texts come by length: the same outputs and scores, in the order of the data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from engine.attribution.trak.dual import attribute_dual
from engine.attribution.trak.kernel import NO_LIMIT, first_examples
from engine.attribution.trak.make_plan import PROOF_EXAMPLES
from engine.attribution.trak.plan import ROWS, Batch
from engine.attribution.trak.primal import primal_projection
from engine.attribution.trak.projection import features
from engine.attribution.trak.solver import Solver
from engine.models import build_model
from engine.store.sharded_rows import ShardedRows
from engine.tasks import Task, load_task
from engine.training import outputs
from engine.training.outputs import batches_by_length, evaluate

N, SHARD, SIZE = 150, 64, 16
ENCODING: dict[str, Any] = {
    "tokenizer": "",
    "token_ids": 30,
    "max_tokens": 24,
    "padding": 0,
    "label_mean": 0.0,
    "label_std": 1.0,
}
TASKS = ("text-classification", "text-regression", "text-multilabel")


def examples(task: str) -> dict[str, np.ndarray]:
    """Texts of 2 to 40 tokens, of which models read 24, most of them short."""
    rng = np.random.default_rng(0)
    lengths = np.minimum(2 + rng.geometric(0.2, N), 40).astype(np.int32)
    ids = rng.integers(1, 30, (N, ENCODING["max_tokens"]), dtype=np.int32)
    ids[np.arange(ids.shape[1]) >= lengths[:, None]] = ENCODING["padding"]
    labels: dict[str, np.ndarray] = {
        "text-classification": rng.integers(0, 3, N),
        "text-regression": rng.normal(size=N),
        "text-multilabel": rng.integers(0, 2, (N, 3)),
    }
    return {"input_ids": ids, "length": lengths, "label": labels[task]}


def in_shards(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """As `read_stacked_arrays` gives them."""
    return {
        name: ShardedRows([array[i : i + SHARD] for i in range(0, N, SHARD)])
        for name, array in arrays.items()
    }


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outputs, "ROWS_PER_SHARD", SHARD)


def bert(width: int) -> nn.Module:
    """With weights so large that texts differ in their outputs."""
    model = build_model("bert-small", {"layers": 1, "width": 8, "heads": 2}, ENCODING, width, 0)
    for parameter in model.parameters():
        parameter.data *= 10
    return model.eval()


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return bert(3)


@pytest.fixture(scope="module")
def arrays() -> dict[str, Any]:
    return in_shards(examples("text-classification"))


TASK = load_task("text-classification")
UNSORTED = replace(TASK, lengths=None)


def batches(
    arrays: dict[str, Any], task: Task = TASK, start: int = 0, stop: int | None = None
) -> Callable[[], Iterator[Batch]]:
    return lambda: batches_by_length(task, arrays, ENCODING, SIZE, "cpu", start, stop)


@pytest.mark.parametrize("name", TASKS)
def test_outputs_are_those_of_batches_in_order(name: str) -> None:
    task, arrays = load_task(name), in_shards(examples(name))
    model = bert(task.width(["a", "b", "c"]))
    found = evaluate(task, model, arrays, ENCODING, SIZE, "cpu")
    wanted = evaluate(replace(task, lengths=None), model, arrays, ENCODING, SIZE, "cpu")
    assert set(found) == set(wanted)
    for key, array in wanted.items():
        assert array.std(axis=0).min() > 0.02
        np.testing.assert_allclose(found[key], array, rtol=1e-4, atol=1e-5)


def test_every_row_comes_once_with_little_padding(arrays: dict[str, Any]) -> None:
    sorted_, plain = (list(batches(arrays, task)()) for task in (TASK, UNSORTED))
    rows = torch.cat([batch[ROWS] for batch in sorted_])
    assert sorted(rows.tolist()) == list(range(N))
    labels = torch.cat([batch["label"] for batch in sorted_])
    assert labels.tolist() == arrays["label"][rows.numpy()].tolist()
    computed, plainly = (sum(b["input_ids"].numel() for b in part) for part in (sorted_, plain))
    assert computed < 0.75 * plainly


def test_plans_are_made_with_the_first_rows(arrays: dict[str, Any]) -> None:
    found = first_examples(batches(arrays))
    assert found[ROWS].tolist() == list(range(PROOF_EXAMPLES))
    wanted = arrays["input_ids"][:PROOF_EXAMPLES][:, : found["input_ids"].shape[1]]
    np.testing.assert_array_equal(found["input_ids"], wanted)


def test_scores_are_those_of_batches_in_order(model: nn.Module, arrays: dict[str, Any]) -> None:
    solver = Solver("dual-wide", 500, 10**6, 1.0, "", 1.0, "plain")
    found, wanted = (
        attribute_dual(
            model,
            task.model_output,
            batches(arrays, task, 0, 130),
            batches(arrays, task, 130, None),
            solver,
            0,
            NO_LIMIT,
        )
        for task in (TASK, UNSORTED)
    )
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4 * float(wanted.abs().max()))


def test_features_of_shards_are_those_of_the_whole(
    model: nn.Module, arrays: dict[str, Any]
) -> None:
    """A build that is resumed computes the shards that are missing, alone."""
    solver = Solver("primal", 600, 64, 1.0, "", 1.0, "plain")
    first = first_examples(batches(arrays))
    projection = primal_projection(model, TASK.model_output, first, solver, 0)

    def computed(task: Task, start: int = 0, stop: int | None = None) -> list[Tensor]:
        rows = batches(arrays, task, start, stop)()
        return list(features(model, task.model_output, rows, projection))

    whole = computed(TASK)
    assert [len(block) for block in whole] == [PROOF_EXAMPLES, SHARD - PROOF_EXAMPLES, SHARD, 22]
    alone = [torch.cat(computed(TASK, i, i + SHARD)) for i in range(0, N, SHARD)]
    assert torch.equal(torch.cat(alone), torch.cat(whole))
    wanted = torch.cat(computed(UNSORTED))
    torch.testing.assert_close(torch.cat(whole), wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "arrays", "encoding"),
    [
        (
            "text-classification",
            {"input": np.ones((40, 5), np.int64), "label": np.zeros(40, np.int64)},
            {"vocabulary": ["", "?"], "max_tokens": 5},
        ),
        (
            "image-classification",
            {"input": np.ones((40, 1, 2, 2), np.uint8), "label": np.zeros(40, np.int64)},
            {"shape": [1, 2, 2], "mean": [0.5], "std": [0.25]},
        ),
        ("text-classification", {k: v[:16] for k, v in examples(TASKS[0]).items()}, ENCODING),
    ],
    ids=["words", "pictures", "one batch"],
)
def test_other_batches_come_in_order(
    name: str, arrays: dict[str, np.ndarray], encoding: dict[str, Any]
) -> None:
    numbered = {**arrays, "number": np.arange(len(arrays["label"]))}
    found = list(batches_by_length(load_task(name), numbered, encoding, SIZE, "cpu", 3))
    assert all(ROWS not in batch for batch in found)
    assert (
        torch.cat([batch["number"] for batch in found]).tolist() == numbered["number"][3:].tolist()
    )
