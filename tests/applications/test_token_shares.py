"""Shares of tokens of stored texts: they sum to the study's own scores, with every solver."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from engine import DataloupeError, Study
from engine.applications.live import Output, Query, load, read_example
from engine.applications.token_shares import Positions, positions_of, token_shares, token_shares_of
from engine.study.examples import read_stacked_arrays
from engine.study.reader import StudyReader
from tests.builders.sentences import SPEC, sentences
from tests.builders.small_transformers import texts

CLOSE = 1e-4
SOLVERS = {
    "dual-exact": "",
    "plain": '[trak]\ncurvature = "plain"\ndamping = 0.05\n',
    "dual-wide": '[trak]\nsolver = "dual-wide"\nwidth = 96\nsoft_threshold = 0.5\n',
    "primal": '[trak]\nsolver = "primal"\nproj_dim = 32\nstorage = "float32"\n',
    "rounded": '[trak]\nsolver = "primal"\nproj_dim = 32\n',
}


@pytest.fixture(scope="module", params=SOLVERS)
def study(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Study:
    root: Path = tmp_path_factory.mktemp("tokens")
    (root / "sentences").mkdir()
    sentences(60, 0).to_csv(root / "sentences" / "train.csv", index=False)
    sentences(8, 1).to_csv(root / "sentences" / "test.csv", index=False)
    spec = SPEC.replace("epochs = 20", "epochs = 3")
    study = Study.create(root, f"{spec}\n{SOLVERS[request.param]}")
    study.build(workers=0)
    return study


def scores_of(study: Study, row: int, output: Output | None = None) -> np.ndarray:
    loaded = load(study.root, "words")
    arrays = {name: array[row : row + 1] for name, array in _arrays(study, "test").items()}
    return loaded.scores(arrays, output)[0]


def _arrays(study: Study, split: str) -> dict[str, np.ndarray]:
    return read_stacked_arrays(StudyReader.open(study.root), split)


def test_shares_sum_to_the_scores_on_both_sides(study: Study) -> None:
    for test_row in (0, 5):
        strongest = np.abs(scores_of(study, test_row)).argmax()  # a soft threshold leaves this one
        rows = [3, 17, 40, int(strongest)]
        found = token_shares(StudyReader.open(study.root), "words", test_row, rows)
        wanted = scores_of(study, test_row)
        close = CLOSE * np.abs(wanted).max()
        assert found.checkpoints == 2
        np.testing.assert_array_equal(found.training_rows, rows)
        np.testing.assert_allclose(found.scores, wanted[rows], rtol=0, atol=close)
        for shares, whole in ((found.train, found.train_whole), (found.test, found.test_whole)):
            sums = [part.sum() for part in shares] + whole
            np.testing.assert_allclose(sums, wanted[rows], rtol=0, atol=close)
        for row, shares in zip(rows, found.train, strict=True):
            padding = _arrays(study, "train")["input"][row] == 0
            assert (shares[padding] == 0).all()
        assert any(part.any() for part in found.test)


def test_shares_are_those_of_the_chosen_output(study: Study) -> None:
    reader, classes = StudyReader.open(study.root), study.dataset.classes
    other = 1 - int(_arrays(study, "test")["label"][5])
    for name, output in (
        (f"class:{classes[other]}", ("class:{}", (other,))),
        (f"{classes[other]}>{classes[1 - other]}", ("{}>{}", (other, 1 - other))),
    ):
        wanted = scores_of(study, 5, output)
        rows = [3, int(np.abs(wanted).argmax())]
        assert not np.allclose(wanted[rows], scores_of(study, 5)[rows], rtol=0.1)
        found = token_shares(reader, "words", 5, rows, name)
        close = CLOSE * np.abs(wanted).max()
        np.testing.assert_allclose(found.scores, wanted[rows], rtol=0, atol=close)
        for shares, whole in ((found.train, found.train_whole), (found.test, found.test_whole)):
            sums = [part.sum() for part in shares] + whole
            np.testing.assert_allclose(sums, wanted[rows], rtol=0, atol=close)


def test_a_text_from_outside_is_split_like_a_stored_one(study: Study) -> None:
    reader = StudyReader.open(study.root)
    text = str(sentences(8, 1)["text"][2])
    example = read_example(Query(study.root, "words", {"text": text}))
    arrays = dict(example.arrays)
    arrays["label"] = np.asarray(_arrays(study, "test")["label"][2:3])
    found = token_shares_of(reader, "words", arrays, [3, 17])
    wanted = token_shares(reader, "words", 2, [3, 17])
    np.testing.assert_allclose(found.train, wanted.train, rtol=1e-4)
    np.testing.assert_allclose(found.test_whole, wanted.test_whole, rtol=1e-4)


def test_pictures_have_no_tokens(small_study: Study) -> None:
    with pytest.raises(DataloupeError, match="no sequences of tokens"):
        token_shares(StudyReader.open(small_study.root), "mlp", 0, [1])


def test_the_length_is_that_of_token_ids() -> None:
    assert positions_of(texts(2)) == Positions(7, {7: 0})
    assert positions_of({"label": torch.zeros(2, 3).long(), "input": torch.zeros(2, 5)}) is None
