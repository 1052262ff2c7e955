"""The pass that ranks both sides: parts, stopped and resumed, give the bytes of one pass."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from engine import store
from engine.api import Study
from engine.attribution.scores.read_ahead import Seconds
from engine.attribution.scores.top_k import top_k
from engine.build import ranking
from engine.store import layout
from engine.store.files import files_below
from engine.study.score_matrices import read_score_matrix


@pytest.fixture
def study(small_study: Study, tmp_path: Path) -> Study:
    """A copy whose search folder is gone: 300 training and 60 test examples."""
    copy = Study.open(shutil.copytree(small_study.root, tmp_path / "study"))
    shutil.rmtree(layout.searches_folder(copy.root, "mlp"))
    return copy


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of 32 rows and parts of two, instead of one part: 5 parts."""
    monkeypatch.setattr(ranking, "ROWS_PER_SHARD", 32)
    monkeypatch.setattr(ranking, "SHARDS_PER_PART", 2)
    monkeypatch.setattr("engine.attribution.scores.blocks.MAX_BLOCK_ROWS", 16)


def parts(study: Study, fingerprint: str = "ab") -> list[ranking.Part]:
    return ranking.parts_of(study.root, "mlp", layout.TRAK, fingerprint, study.dataset.n_train)


def contents(study: Study) -> dict[str, bytes]:
    folder = layout.search_folder(study.root, "mlp", layout.TRAK)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files_below(folder)}


def ranked(study: Study) -> dict[str, bytes]:
    for part in ranking.missing(parts(study)):
        ranking.rank_part(part)
    ranking.join(parts(study), study.dataset.n_test)
    return contents(study)


def test_parts_join_to_one_pass(study: Study) -> None:
    scores = read_score_matrix(study)
    k = study.spec.search.top_k
    assert len(parts(study)) == 5
    found = ranked(study)
    names = {"top/test.safetensors", "totals.safetensors"}
    assert set(found) == names | {f"top/train-{n:05d}.safetensors" for n in range(10)}
    by_test, by_train = top_k(scores, k)
    stored = store.read_tensors(layout.top_test_file(study.root, "mlp", layout.TRAK))
    for name, array in vars(by_test).items():
        np.testing.assert_array_equal(stored[name], array)
    for shard in range(10):
        path = layout.top_train_file(study.root, "mlp", layout.TRAK, shard)
        for name, array in store.read_tensors(path).items():
            wanted = vars(by_train)[name][32 * shard : 32 * shard + 32]
            np.testing.assert_array_equal(array, wanted)
    tau = scores.rows(np.arange(scores.n_test))
    totals = store.read_tensors(layout.totals_file(study.root, "mlp", layout.TRAK))
    np.testing.assert_allclose(totals["test_support"], np.maximum(tau, 0).sum(1), rtol=1e-5)
    np.testing.assert_allclose(totals["train_oppose"], np.minimum(tau, 0).sum(0), rtol=1e-5)


@pytest.mark.parametrize("stop", range(1, 18))
def test_a_pass_that_was_stopped_continues_with_the_missing_part(
    study: Study, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    """Before any write: of 10 shards, 5 parts, the joined file and the sums."""
    whole = ranked(study)
    shutil.rmtree(layout.searches_folder(study.root, "mlp"))
    written = 0

    def write(path: Path, *rest: object) -> None:
        nonlocal written
        if written == stop - 1:
            raise KeyboardInterrupt
        written += 1
        original(path, *rest)  # type: ignore[arg-type]

    original = store.write_tensors
    with monkeypatch.context() as patch:
        patch.setattr(store, "write_tensors", write)
        with pytest.raises(KeyboardInterrupt):
            ranked(study)
    full = min((stop - 1) // 3, 5)
    left = ranking.missing(parts(study))
    assert [part.number for part in left] == list(range(full, 5))
    assert ranked(study) == whole


def test_parts_of_other_scores_are_ranked_again(study: Study) -> None:
    whole = ranked(study)
    old, new = parts(study), parts(study, "cd")
    ranking.rank_part(new[1])  # overwrites two shards
    assert ranking.missing(new) == [new[0], *new[2:]]
    assert ranking.missing(old) == [old[1]]
    assert ranked(study) == whole


def test_a_lost_result_is_ranked_again(study: Study) -> None:
    whole = ranked(study)
    layout.top_train_file(study.root, "mlp", layout.TRAK, 3).unlink()
    assert [part.number for part in ranking.missing(parts(study))] == [1]
    assert ranked(study) == whole
    layout.totals_file(study.root, "mlp", layout.TRAK).unlink()
    assert len(ranking.missing(parts(study))) == 5
    assert ranked(study) == whole


def test_a_long_pass_says_what_limits_it() -> None:
    assert ranking.speed_note(Seconds(1, 20, 5), 10) == ""
    assert ranking.speed_note(Seconds(12, 96, 12), 2000) == (
        "Ranked 2,000 scores in 2.0 minutes of workers, limited by the processor: 10% reading "
        "features, 80% multiplying, 10% selecting."
    )
    assert "limited by the disk" in ranking.speed_note(Seconds(90, 60, 10), 10)
