"""A run of traker on pictures with captions becomes a method of a study."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.clip_lds import Named, shipped, whole_batches
from engine import Study
from engine.build.models import load_checkpoint
from engine.study.methods import ranked_methods
from engine.study.score_matrices import read_score_matrix
from tests.builders.copies import copy_of
from tests.builders.page_contents import cards, words
from tests.exchange.test_importing import NO_BENCH


def run_traker(study: Study, folder: Path) -> np.ndarray:
    """traker's scores of a study's two checkpoints by its CLIP output, `[n_train, n_test]`."""
    from trak import TRAKer
    from trak.modelout_functions import CLIPModelOutput

    models = [Named(load_checkpoint(study, "towers", m, "cpu")).eval() for m in range(2)]
    train, test = (whole_batches(study, split) for split in ("train", "test"))
    n_train, n_test = study.dataset.n_train, study.dataset.n_test
    tool = TRAKer(
        model=models[0],
        task=shipped()(simulated_batch_size=40),
        train_set_size=n_train,
        save_dir=folder,
        device="cpu",
        proj_dim=32,
        use_half_precision=False,
        logging_level=logging.ERROR,
    )

    def embed(model: torch.nn.Module) -> None:
        """What its `get_embeddings` does, which needs a GPU."""
        with torch.no_grad():
            answers = [model(*batch)[:2] for batch in train]
        CLIPModelOutput.image_embeddings = torch.cat([pictures for pictures, _ in answers])
        CLIPModelOutput.text_embeddings = torch.cat([captions for _, captions in answers])
        CLIPModelOutput.num_computed_embeddings = n_train

    torch.manual_seed(0)
    for number, model in enumerate(models):
        embed(model)
        tool.load_checkpoint(model.state_dict(), model_id=number)
        for batch in train:
            tool.featurize(batch, num_samples=len(batch[-1]))
    tool.finalize_features()
    for number, model in enumerate(models):
        embed(model)
        tool.start_scoring_checkpoint("pairs", model.state_dict(), number, n_test)
        for batch in test:
            tool.score(batch, num_samples=len(batch[-1]))
    return np.array(tool.finalize_scores("pairs"))


def test_a_traker_run_of_clip_is_shown(pairs_study: Study, tmp_path: Path, visit: Any) -> None:
    """Its scores are those that traker gives, and pages show the pairs that it ranks first."""
    pytest.importorskip("trak", reason=NO_BENCH)
    own = run_traker(pairs_study, tmp_path / "save_dir")
    assert own.shape == (96, 24)
    assert np.abs(own).min(axis=0).max() < np.abs(own).max(axis=0).min()
    study = copy_of(pairs_study, tmp_path / "study")
    study.import_scores("traker", tmp_path / "save_dir")
    assert "traker" in ranked_methods(study, "towers")
    found = read_score_matrix(study, method="traker").rows(np.arange(24))
    np.testing.assert_array_equal(found, own.T)
    right = int(np.flatnonzero(study.predictions("test")["correct"])[0])
    app = visit(study, "explain", test=f"test-{right}", method="traker", k="5")
    order = np.argsort(-own[:, right], kind="stable")[:5]
    shown = cards(app)
    assert [card["row"] for card in shown] == order.tolist()
    assert shown[0]["text"] == study.table("train")["text"][order[0]]
    assert "Imported from pairs.mmap, made by traker" in words(app)
