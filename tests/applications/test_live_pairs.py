"""Live queries about pictures with captions: both, or one part alone."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from engine import DataError, DataloupeError, Study, store
from engine.applications.live import Query, QueryResult, StoredQuery, explain_stored, run_query
from engine.store import layout
from engine.study.examples import read_stacked_arrays
from engine.tasks import Given
from tests.applications.test_live import png


def picture_of(study: Study, row: int) -> bytes:
    return png(read_stacked_arrays(study, "test")["input"][row].transpose(1, 2, 0))


def caption_of(study: Study, row: int) -> str:
    return str(study.table("test")["text"][row])


def answered(study: Study, given: Given, output: str | None = None, **more: int) -> QueryResult:
    return run_query(Query(study.root, "towers", given, output, **more))


def assert_same_scores(found: QueryResult, study: Study, row: int, output: str) -> None:
    wanted = explain_stored(StoredQuery(study.root, "towers", "test", row, output))
    assert found.output.name == output
    assert found.value == pytest.approx(wanted.value, rel=1e-4)
    for sign in ("support", "oppose"):
        np.testing.assert_array_equal(getattr(found, sign), getattr(wanted, sign))
        mine, theirs = (getattr(one, f"{sign}_scores") for one in (found, wanted))
        np.testing.assert_allclose(mine, theirs, rtol=1e-3)


def test_a_test_pair_gets_its_own_stored_scores(pairs_study: Study) -> None:
    for row in (0, 7, 19):
        given = {"picture": picture_of(pairs_study, row), "text": caption_of(pairs_study, row)}
        found = answered(pairs_study, given)
        scores = pairs_study.scores([row], "towers", "trak")[0]
        tiny = 1e-4 * np.abs(scores).max()
        order = np.argsort(-scores, kind="stable")[: len(found.support)]
        np.testing.assert_allclose(found.support_scores, scores[order], rtol=1e-3, atol=tiny)
        np.testing.assert_allclose(scores[found.support], scores[order], rtol=1e-3, atol=tiny)
        assert_same_scores(found, pairs_study, row, "alignment")
        assert found.completed is None
        table = pairs_study.predictions("test").iloc[row]
        assert found.predicted == table["predicted"]
        for name in ("similarity", "caption_rank", "picture_rank"):
            assert found.measures[name] == pytest.approx(table[name], abs=1e-5)
        assert found.value == pytest.approx(table["output"], rel=1e-4)
        neighbours, alike = pairs_study.neighbours("test", row, 20)
        np.testing.assert_allclose(found.similarities[:20], alike, atol=1e-5)
        assert found.similar[0] == neighbours[0]


@pytest.mark.parametrize("part", ["text", "picture"])
def test_a_part_alone_finds_the_other_among_the_test_pairs(pairs_study: Study, part: str) -> None:
    """Its fits are the cosines with that part of all test pairs, among them those that share it."""
    parts = []
    for m in (0, 1):
        kept = store.read_tensors(layout.outputs_file(pairs_study.root, "towers", m, "test"))
        pictures, captions = np.split(np.array(kept["embeddings"]) * 2**0.5, 2, axis=1)
        parts.append(pictures @ captions.T if part == "text" else captions @ pictures.T)
    texts = pairs_study.table("test")["text"]
    assert (texts == texts[11]).sum() > 1
    for row in (2, 11):
        wanted = np.mean(parts, axis=0)[row]
        given: Given = (
            {"picture": picture_of(pairs_study, row)}
            if part == "text"
            else {"text": caption_of(pairs_study, row)}
        )
        found = answered(pairs_study, given)
        completed = found.completed
        assert completed is not None
        assert (completed.part, completed.candidates) == (part, 24)
        np.testing.assert_allclose(completed.fits, np.sort(wanted)[::-1][:10], atol=1e-5)
        np.testing.assert_allclose(wanted[completed.rows], completed.fits, atol=1e-5)
        assert completed.by == completed.rows[0]
        assert found.measures["similarity"] == pytest.approx(completed.fits[0], abs=1e-5)
        assert found.output.name == ("picture-side" if part == "text" else "caption-side")
        assert found.output == found.default
        # With its own part it is the test pair.
        whole = answered(pairs_study, given, completed_by=row)
        assert whole.completed is not None
        assert whole.completed.by == row
        assert_same_scores(whole, pairs_study, row, found.output.name)
        assert_same_scores(
            answered(pairs_study, given, "alignment", completed_by=row),
            pairs_study,
            row,
            "alignment",
        )


def test_a_picture_of_another_size_is_resized(pairs_study: Study) -> None:
    red = png(np.full((40, 40, 3), (220, 40, 40), np.uint8))
    found = answered(pairs_study, {"picture": red, "text": "a large red Zanzibar"})
    assert any("40 × 40 pixels" in note for note in found.notes)
    assert any("“zanzibar”" in note for note in found.notes)
    assert found.thumbnail is not None
    assert Image.open(io.BytesIO(found.thumbnail)).size == (16, 16)


BAD: dict[str, tuple[Given, str]] = {
    "nothing": ({}, "Nothing is given: a picture or a text is needed."),
    "no picture": ({"picture": b"no picture"}, "The picture is damaged or no picture"),
    "an empty file": ({"picture": b"", "text": "a red bar"}, "The file is empty."),
    "no words": ({"text": " …!? "}, "The text has no words"),
    "a long text": ({"text": "word " * 5_000}, "more than 20,000. Shorten it."),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_parts_get_one_line(pairs_study: Study, case: str) -> None:
    given, line = BAD[case]
    with pytest.raises(DataError) as error:
        answered(pairs_study, given)
    assert line in str(error.value)
    assert "\n" not in str(error.value)


def test_a_row_that_is_not_looked_among_is_refused(pairs_study: Study) -> None:
    for row in (24, -1):
        with pytest.raises(DataloupeError, match="the first 24 test examples"):
            answered(pairs_study, {"text": "a red bar"}, completed_by=row)


def test_other_tasks_need_every_part(small_study: Study) -> None:
    for given in ({}, {"text": "a coat"}):
        with pytest.raises(DataError, match="a picture is needed"):
            run_query(Query(small_study.root, "mlp", given))
