"""Benchmarks: the workload trains once and splits fairly, scores are averaged as TRAK says, rivals
come out in our orientation, and the committed results hold the figures that were requested."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import gpu as gpu_benchmark
from benchmarks import lds as lds_benchmark
from benchmarks import (
    low_rank,
    rivals,
    robustness,
    robustness_inputs,
    robustness_kills,
    workload,
)
from engine.api import Study
from engine.attribution.trak import primal
from engine.attribution.trak.projection import features
from engine.models import build_model
from engine.store.errors import SpecError
from engine.store.spec import AlgorithmSpec
from tests.builders.exact_gradients import dense_gradients

RESULTS = Path(workload.__file__).parent / "results"


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A workload of 24 + 6 noisy pictures of two brightnesses, trained in this process."""

    def split(n, seed):
        rng = np.random.default_rng(seed)
        label = np.arange(n) % 2
        pictures = rng.integers(0, 100, (n, 1, 28, 28)) + 100 * label[:, None, None, None]
        return {"input": pictures.astype(np.uint8), "label": label}

    found = workload.Data(split(24, 0), split(6, 1), "tiny")
    monkeypatch.setattr(workload, "data", lambda: found)
    monkeypatch.setattr(lds_benchmark, "data", lambda: found)
    for module in (workload, lds_benchmark):
        monkeypatch.setattr(module, "CACHE", tmp_path)
    monkeypatch.setattr(workload, "prepare", partial(workload.prepare, workers=0))
    halves = {"test": range(6), "validation": range(6, 9), "fit": range(9, 12)}
    monkeypatch.setattr(workload, "HALVES", halves)
    recipe = AlgorithmSpec(
        architecture="mlp",
        architecture_options={"widths": [4]},
        learning_rate=0.01,
        epochs=2,
        batch_size=4,
    )
    return workload.Workload("tiny", recipe, checkpoints=2, seeds=2)


def test_masks_are_fixed_halves_and_none_serves_twice(tiny):
    halves = [half for purpose in workload.HALVES.values() for half in purpose]
    masks = np.stack([workload.mask(half) for half in halves])
    np.testing.assert_array_equal(masks.sum(1), 12)
    assert len({mask.tobytes() for mask in masks}) == len(halves) == 12
    np.testing.assert_array_equal(workload.mask(3), masks[3])


def test_nothing_is_trained_twice(tiny, monkeypatch):
    masks, margins = workload.truth(tiny, "test")
    assert masks.shape == (6, 24)
    assert margins.shape == (6, 6)
    runs = sorted((workload.CACHE / "tiny" / "runs").iterdir())
    assert len(runs) == 12
    monkeypatch.setattr(workload, "train", lambda job: pytest.fail(f"trained again: {job}"))
    np.testing.assert_array_equal(workload.truth(tiny, "test")[1], margins)


def test_margins_are_averaged_over_seeds_of_a_half(tiny):
    alone = workload.Workload("tiny", tiny.recipe, checkpoints=1, seeds=1)
    both, one = workload.truth(tiny, "test")[1], workload.truth(alone, "test")[1]
    other = workload.store.read_tensors(workload._path(workload.Model(tiny, 2, 1)))["margin"]
    np.testing.assert_allclose(both[2], (one[2] + other) / 2, rtol=1e-6)


def test_another_recipe_is_another_checkpoint(tiny):
    longer = workload.Workload(
        "tiny", tiny.recipe.model_copy(update={"epochs": 3}), checkpoints=1, seeds=1
    )
    assert workload.checkpoint_file(tiny, 0) != workload.checkpoint_file(longer, 0)
    assert workload.checkpoint_file(tiny, 0) != workload.checkpoint_file(tiny, 1)


def test_scores_are_a_product_of_means(tiny):
    rng = np.random.default_rng(0)
    parts = rng.normal(size=(2, 6, 24)).astype(np.float32)
    qs = [lds_benchmark.out_to_loss(workload.checkpoint(tiny, number)) for number in range(2)]
    mean = lds_benchmark.Mean(power=0.5)
    for part, q in zip(parts, qs, strict=True):
        found = mean.add(part, q)
    q = np.mean(qs, axis=0)
    assert ((q > 0) & (q < 1)).all()
    np.testing.assert_allclose(found, parts.mean(0) * np.sqrt(q), rtol=1e-5)
    np.testing.assert_allclose(lds_benchmark.Mean(power=0).add(parts[0], qs[0]), parts[0])


def test_curve_scores_our_default_solver(tiny):
    solver = lds_benchmark.default_solver(tiny, lds_benchmark.TrakSpec())
    assert solver.kind == "dual-exact"
    found = lds_benchmark.curve(tiny, (1, 2), partial(lds_benchmark.ours, solver), 0.5)
    assert list(found) == ["1", "2"]
    for entry in found.values():
        assert set(entry) == {"lds", "low", "high", "seconds"}
        assert entry["low"] <= entry["high"]
        assert entry["seconds"] >= 0


def test_the_two_solvers_agree_where_nothing_is_projected(tiny):
    spec = lds_benchmark.TrakSpec(solver="primal", damping=0.5)
    primal = lds_benchmark.default_solver(tiny, spec)
    dual = lds_benchmark.default_solver(tiny, lds_benchmark.TrakSpec())
    model = workload.checkpoint(tiny, 0)
    phi = dense_gradients(model, workload.task().model_output, next(workload.batches_of("train")()))
    per_feature = 0.5 * phi.square().sum().item() / phi.shape[1]
    dual = replace(dual, damping=per_feature / phi.square().sum(1).mean().item())
    unweighted = torch.ones(len(phi))
    torch.testing.assert_close(
        lds_benchmark.attribute(primal, model, 0, unweighted),
        lds_benchmark.attribute(dual, model, 0, unweighted),
        rtol=1e-3,
        atol=1e-5,
    )


# --- rivals --------------------------------------------------------------------------------------


def gradients(model, split):
    return dense_gradients(model, workload.task().model_output, next(workload.batches_of(split)()))


def test_gradient_dot_is_the_dense_one(tiny):
    model = workload.checkpoint(tiny, 0)
    wanted = gradients(model, "test") @ gradients(model, "train").T
    torch.testing.assert_close(rivals.gradient_dot(model, 0), wanted, rtol=1e-4, atol=1e-5)


def test_traker_comes_out_test_major_and_unchanged(tiny, monkeypatch):
    """traker's scores are Φ(ΦᵀΦ)⁻¹φ of its own features, up to one factor."""
    projectors = pytest.importorskip("trak.projectors")
    monkeypatch.setattr(rivals, "PROJ_DIM", 8)
    monkeypatch.setattr(projectors.BasicProjector, "free_memory", lambda self: None)  # of one block
    model = workload.checkpoint(tiny, 0)
    scores = rivals.traker(model, 0)
    assert scores.shape == (6, 24)
    generator = torch.Generator().manual_seed(0)
    train = gradients(model, "train")
    projection = torch.empty(train.shape[1], 8).normal_(generator=generator)
    phi, phi_test = train @ projection, gradients(model, "test") @ projection
    wanted = phi_test.double() @ torch.linalg.inv(phi.T.double() @ phi.double()) @ phi.T.double()
    correlation = np.corrcoef(scores.flatten(), wanted.flatten())[0, 1]
    assert correlation > 0.99


def test_ekfac_comes_out_test_major_with_support_positive(tiny):
    pytest.importorskip("kronfluence", reason="needs the extra `bench`: make bench")
    scores = rivals.ekfac(workload.checkpoint(tiny, 0), 0)
    assert scores.shape == (6, 24)
    plain = rivals.gradient_dot(workload.checkpoint(tiny, 0), 0)
    q = torch.from_numpy(lds_benchmark.out_to_loss(workload.checkpoint(tiny, 0)))
    assert np.corrcoef(scores.flatten(), (plain * q).flatten())[0, 1] > 0


def test_featurise_compares_in_turns(tiny):
    pytest.importorskip("trak", reason="needs the extra `bench`: make bench")
    from benchmarks.featurise import compare

    batch = next(workload.batches_of("train")())
    batch = {
        name: tensor.repeat(128, *[1] * (tensor.ndim - 1))[:128] for name, tensor in batch.items()
    }
    found = compare(workload.checkpoint(tiny, 0), batch, rounds=1, batches=1)
    rates = found["examples_per_second"]
    assert set(rates) == {"ours", "ours_wide", "bound", "traker"}
    assert found["ratio_vs_traker"] == pytest.approx(rates["ours"] / rates["traker"], rel=0.05)


# --- committed results ---------------------------------------------------------------------------


def test_committed_lds_holds_every_figure_with_its_interval():
    found = json.loads((RESULTS / "lds.json").read_text())
    wanted = [(found, "cnn", "1 5 10"), (found, "mlp", "1 5")]
    for name in ("primal", *rivals.RIVALS):
        wanted += [(found[name], "cnn", "1 5"), (found[name], "mlp", "1")]
    for table, name, counts in wanted:
        for count in counts.split():
            entry = table[name][count]
            assert entry["low"] <= entry["lds"] <= entry["high"]
            assert entry["seconds"] > 0
    assert found["device"]
    assert found["versions"]["torch"]


def test_committed_speeds_are_ratios_of_their_rates():
    found = json.loads((RESULTS / "featurise.json").read_text())
    for part in (found, found["resnet9"]):
        rates = part["examples_per_second"]
        assert part["ratio_vs_traker"] == pytest.approx(rates["ours"] / rates["traker"], rel=0.05)
        assert part["ratio_vs_bound"] == pytest.approx(rates["ours"] / rates["bound"], rel=0.01)


def test_input_cases_are_counted_in_a_report_of_pytest(tmp_path):
    (tmp_path / "report.xml").write_text(
        '<testsuites><testsuite><testcase classname="a" name="right"/>'
        '<testcase classname="a" name="wrong"><failure/></testcase>'
        '<testcase classname="a" name="broken"><error/></testcase>'
        '<testcase classname="a" name="left out"><skipped/></testcase></testsuite></testsuites>'
    )
    found = robustness_inputs.counts(tmp_path / "report.xml")
    assert (found["input_cases"], found["input_cases_right"]) == (4, 1)
    assert found["input_cases_wrong"] == ["a.wrong", "a.broken", "a.left out"]


def test_a_killed_work_that_leaves_other_files_is_seen(tmp_path):
    def study(name, **files):
        for file, text in files.items():
            (tmp_path / name / "x").mkdir(parents=True, exist_ok=True)
            (tmp_path / name / "x" / file.replace("_", ".")).write_text(text)
        return tmp_path / name

    whole = study("whole", a_json='{"when": 1, "k": 2}', b_bin="b", c_bin="c")
    again = study("again", a_json='{"when": 9, "k": 2}', b_bin="b", c_bin="c")
    other = study("other", a_json='{"when": 1, "k": 3}', b_bin="B", d_bin="c")
    assert robustness_kills.differences(whole, again) == []
    assert robustness_kills.differences(whole, other) == [
        "x/c.bin is missing",
        "x/d.bin is left over",
        "x/a.json differs",
        "x/b.bin differs",
    ]


def test_every_part_of_robustness_has_its_figures():
    names = {part.__name__.rpartition(".")[2] for part in robustness.PARTS}
    files = {path.stem for path in Path(robustness.__file__).parent.glob("robustness_*.py")}
    assert names == files


def test_levers_are_pulled_one_by_one_and_all_together():
    from benchmarks import levers

    for model, base in levers.BASES.items():
        found = levers.variants(model)
        assert found.pop("none") == base
        every = found.pop("all").model_dump()
        assert list(found) == list(levers.LEVERS[model])
        changed = {}
        for name, recipe in found.items():
            build_model(recipe.architecture, recipe.architecture_options, workload.ENCODING, 10, 0)
            now, before = recipe.model_dump(), base.model_dump()
            changed[name] = {key for key in now if now[key] != before[key]}
            for key in changed[name] - {"architecture_options"}:
                assert every[key] == now[key]
            assert recipe.architecture_options.items() <= every["architecture_options"].items()
        assert all(changed.values())


# --- low-rank factors -----------------------------------------------------------------------------


def test_a_gradient_of_rank_one_loses_nothing_in_factors(tiny):
    model = workload.checkpoint(tiny, 0)
    projection = low_rank.factored_projection(model, 0)
    batches = workload.batches_of("train")
    whole = torch.cat(list(features(model, workload.task().model_output, batches(), projection)))
    found = low_rank.in_low_rank(whole, projection, 1)
    assert projection.matrices
    assert low_rank.low_rank_bytes(projection, 1) < 2 * projection.width
    torch.testing.assert_close(found, whole, rtol=2e-2, atol=2e-3 * whole.abs().max().item())


def test_factors_keep_the_best_part_of_a_matrix(tiny):
    projection = low_rank.factored_projection(workload.checkpoint(tiny, 0), 0)
    drawn = torch.randn(5, projection.width, generator=torch.Generator().manual_seed(0))
    lost = [
        (low_rank.in_low_rank(drawn, projection, rank) - drawn).square().sum().item()
        for rank in (1, 2, 4)
    ]
    best = [0.0, 0.0, 0.0]
    for name, matrix in projection.matrices.items():
        rows, columns = low_rank.sides_of(projection, name)
        part = drawn[:, matrix.start : matrix.start + matrix.width].unflatten(1, (rows, columns))
        values = torch.linalg.svdvals(part).square()
        for number, rank in enumerate((1, 2, 4)):
            if rank * (rows + columns) < rows * columns:
                best[number] += values[:, rank:].sum().item()
    np.testing.assert_allclose(lost, best, rtol=1e-3, atol=1e-2)


def test_wide_scores_are_those_of_the_primal(tiny):
    spec = lds_benchmark.TrakSpec(solver="primal", damping=0.5)
    solver = lds_benchmark.default_solver(tiny, spec)
    rng = np.random.default_rng(0)
    train, test = (
        torch.from_numpy(rng.normal(size=(n, solver.proj_dim)).astype(np.float32)) for n in (24, 6)
    )
    q = torch.from_numpy(rng.random(24).astype(np.float32))
    wanted = primal.test_factors(primal.gram([train], solver, q), test, solver.damping) @ train.T
    found = low_rank.wide_scores(train, test, solver, q)
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-5)


# --- on a GPU -------------------------------------------------------------------------------------


def test_what_needs_a_gpu_runs_without_one(monkeypatch, tmp_path):
    monkeypatch.setenv("DATALOUPE_DEVICE", "cpu")
    monkeypatch.setenv("DATALOUPE_GPU_SIZE", "tiny")
    monkeypatch.setattr(gpu_benchmark, "built", partial(_built_in, tmp_path))
    found = gpu_benchmark.measure()
    assert found["on"] == "cpu"
    assert found["agreement"] == {"resnet9": 0.0, "resnet-small": 0.0}
    for rates in found["featurise_vs_bound"].values():
        assert set(rates) == {"float32", "bfloat16"}
        assert min(rates.values()) > 0
    assert found["solved"] == 200
    assert list(found["attribution_seconds"]) == ["1"]
    assert found["in_flight_speedup"] == 1


def test_a_benchmark_of_a_gpu_says_that_there_is_none(monkeypatch):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    monkeypatch.delenv("DATALOUPE_DEVICE", raising=False)
    with pytest.raises(SpecError, match="cuda"):
        gpu_benchmark.measure()


def _built_in(folder: Path, name: str, spec: str) -> Study:
    study = Study.create(folder / name, spec)
    study.build(workers=0)
    return study
