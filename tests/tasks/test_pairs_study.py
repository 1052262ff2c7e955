"""A study of pictures with captions: contexts, scores of both sides, retrieval, verbs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from engine import Study, store
from engine.applications.live import StoredQuery, explain_stored
from engine.cli.main import main
from engine.store import layout
from engine.study.examples import read_stacked_arrays
from engine.study.models import checkpoint_seed
from engine.study.retrieval import has_ranks, read_recall
from engine.tasks.contrastive import draw_negatives, pairs
from engine.tasks.outcomes import OWN_PAIR
from tests.builders.copies import copy_of


def test_the_negatives_of_a_checkpoint_are_kept(pairs_study: Study) -> None:
    """The rows are those of its seed, and the embeddings those of its model."""
    from engine.build.models import load_checkpoint
    from engine.build.tasks import task_of
    from engine.training.outputs import read_batch

    arrays = read_stacked_arrays(pairs_study, "train")
    encoding = pairs_study.dataset.encoding
    drawn = []
    for checkpoint in (0, 1):
        kept = store.read_tensors(layout.context_file(pairs_study.root, "towers", checkpoint))
        rows = draw_negatives(96, 40, checkpoint_seed(pairs_study, checkpoint))
        np.testing.assert_array_equal(kept["negative_rows"], rows)
        model = load_checkpoint(pairs_study, "towers", checkpoint, "cpu")
        batch = read_batch(task_of(pairs_study), arrays, rows, encoding, "cpu")
        with torch.no_grad():
            found = pairs(model, batch)
        np.testing.assert_allclose(kept["pictures"], found.pictures, atol=1e-5)
        np.testing.assert_allclose(kept["captions"], found.captions, atol=1e-5)
        assert len(kept["gallery_pictures"]) == pairs_study.dataset.n_test
        drawn.append(rows)
    assert not np.array_equal(*drawn)


def test_scores_of_both_sides_add_up(pairs_study: Study) -> None:
    """The alignment is the sum of its sides, and a score is linear in the output's gradient."""
    every = pairs_study.dataset.n_train
    sides = []
    for output in ("picture-side", "caption-side"):
        found = explain_stored(StoredQuery(pairs_study.root, "towers", "test", 3, output, every))
        scores = np.zeros(every)
        scores[found.support], scores[found.oppose] = found.support_scores, found.oppose_scores
        sides.append(scores)
    wanted = pairs_study.scores([3], "towers", "trak")[0]
    largest = np.abs(wanted).max()
    np.testing.assert_allclose(sum(sides), wanted, atol=1e-3 * largest)
    assert min(np.abs(side).max() for side in sides) > 0.05 * largest
    assert np.abs(sides[0] - sides[1]).max() > 0.05 * largest


def test_retrieval_is_far_better_than_chance(pairs_study: Study) -> None:
    table = pairs_study.predictions("test")
    assert list(table) == [
        *("predicted", "correct", "similarity", "caption_rank", "picture_rank", "output")
    ]
    for side in ("caption_rank", "picture_rank"):
        assert (table[side] <= 6).mean() > 0.6  # 6 of 24: chance is a quarter
    right = (table["caption_rank"] == 1) & (table["picture_rank"] == 1)
    np.testing.assert_array_equal(table["correct"], right)
    np.testing.assert_array_equal(table["predicted"] == "its own pair", right)
    assert has_ranks(pairs_study, "towers")
    recall = read_recall(pairs_study)
    assert recall["caption"][1] == pytest.approx((table["caption_rank"] == 1).mean())
    assert recall["picture"][10] >= recall["picture"][5] >= recall["picture"][1] > 0


def test_removals_are_verified_by_what_is_retrieved(pairs_study: Study, tmp_path: Path) -> None:
    own = copy_of(pairs_study, tmp_path / "own")
    supporters = [one.id for one in own.explain("test-3", k=5).supporting]
    (found,) = own.verify(supporters, tests=["test-3"], seeds=1, workers=0).outcomes
    assert found.before == own.predictions("test")["predicted"][3]
    (answer,) = found.answers_without
    assert answer == OWN_PAIR or "of test pair" in answer
    assert found.flips is not None
    assert found.flips.mean == float((answer == OWN_PAIR) != (found.before == OWN_PAIR))


VERBS = {
    "explain": ["explain", "{root}", "--test", "test-3"],
    "explain one side": ["explain", "{root}", "--test", "test-3", "--output", "picture-side"],
    "whatif": ["whatif", "{root}", "--remove", "train-1,train-2"],
    "evaluate": ["evaluate", "{root}", "--by-group"],
    "methods": ["methods", "{root}"],
    "doctor": ["doctor", "{root}"],
}


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_works_for_pairs(
    verb: str, pairs_study: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([part.format(root=pairs_study.root) for part in VERBS[verb]]) == 0
    printed = capsys.readouterr().out
    assert "class" not in printed
    assert "margin" not in printed
