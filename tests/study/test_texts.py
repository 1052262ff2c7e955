"""Texts of a study: searched by words and length, and compared by their words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.api import Study
from engine.cli.main import main
from engine.data.words import words
from engine.store.errors import DataloupeError, UnknownName
from engine.study.rankings import find_influences
from engine.study.similar_texts import in_both, shared_spans, similar_texts
from engine.study.text_search import find_texts, has_texts, text_lengths
from tests.builders.synthetic_study import write_study


def test_found_rows_are_those_with_the_words_and_the_length(text_study: Study) -> None:
    texts = text_study.table("train")["text"]
    loved = [row for row, text in enumerate(texts) if "loved" in text]
    assert find_texts(text_study, "train", "LOVED").tolist() == loved
    phrase = [row for row in loved if "loved the soup" in texts[row]]
    assert find_texts(text_study, "train", '"loved the soup"').tolist() == phrase != loved
    assert len(find_texts(text_study, "train")) == 200
    lengths = text_lengths(text_study, "train")
    assert lengths.tolist() == [len(words(text)) for text in texts]
    few, many = find_texts(text_study, "train", length=(None, 5)), lengths <= 5
    assert few.tolist() == np.flatnonzero(many).tolist() != list(range(200))
    both = find_texts(text_study, "train", "loved", (6, 6))
    assert both.tolist() == [row for row in loved if lengths[row] == 6]


def test_pictures_have_no_texts(tmp_path: Path) -> None:
    study = write_study(tmp_path / "study", stage="data")
    assert not has_texts(study)
    with pytest.raises(DataloupeError, match="no texts to search"):
        find_texts(study, "test", "film")
    with pytest.raises(DataloupeError, match="Texts are needed"):
        similar_texts(study, 0)


def test_similar_texts_share_their_words(text_study: Study) -> None:
    test = text_study.table("test")["text"]
    found = similar_texts(text_study, "test-3", k=5)
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    train = text_study.table("train")
    for one in found:
        assert one.text == train["text"][one.row]
        assert one.id == train["id"][one.row]
        assert set(one.shared) == set(words(test[3])) & set(words(one.text)) != set()
    itself = similar_texts(text_study, 7, k=200, split="train")
    assert 7 not in [one.row for one in itself]
    with pytest.raises(DataloupeError, match="at least 1"):
        similar_texts(text_study, 0, k=0)
    with pytest.raises(UnknownName):
        similar_texts(text_study, "test-999")


def test_supporters_among_the_similar(text_study: Study) -> None:
    found = in_both(text_study, "test-3", k=8)
    support = find_influences(text_study, 3, 8)[0].tolist()
    similar = [one.row for one in similar_texts(text_study, "test-3", k=8)]
    assert found.both == [row for row in support if row in similar]
    assert (found.supporters, found.similar) == (len(support), 8)


def marked(study: Study, text: str, other: str) -> list[str]:
    return [text[start:stop] for start, stop in shared_spans(study, text, other)]


SPANS: dict[str, tuple[str, str, list[str]]] = {
    "rare word": ("My aunt Loved it", "we loved them", ["Loved"]),
    "common word alone": ("the soup", "the film", []),
    "in a row": ("a sailor loved x", "nobody loved x", ["loved x"]),
    "not in a row": ("loved x", "x loved", ["loved", "x"]),
    "three common in a row": ("On the soup, this film", "the soup this song", ["the soup, this"]),
    "accents and marks": ("un cafe\u0301!", "café", ["cafe\u0301"]),
    "Arabic": ("شاهدت الفيلم أمس", "الفيلم جيد", ["الفيلم"]),
    "Chinese": ("看电影吧", "电影院", ["电影"]),
    "nothing": ("", "loved", []),
    "no word": ("!!!", "loved", []),
}  # fmt: skip


@pytest.mark.input_case
@pytest.mark.parametrize("case", SPANS)
def test_shared_words_are_marked_where_they_stand(text_study: Study, case: str) -> None:
    text, other, wanted = SPANS[case]
    assert marked(text_study, text, other) == wanted


def test_find_and_similar_on_the_command_line(
    text_study: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: str) -> Any:
        assert main([arguments[0], str(text_study.root), *arguments[1:]]) == 0
        return capsys.readouterr().out

    found = json.loads(run("find", "loved", "--split", "train", "--length", "..5", "--json"))
    rows = find_texts(text_study, "train", "loved", (None, 5)).tolist()
    assert [one["row"] for one in found] == rows
    shown = run("find", "loved", "--split", "train", "--k", "2")
    assert f"{len(find_texts(text_study, 'train', 'loved'))} training texts of 200." in shown
    assert shown.count("loved") == 2
    content = json.loads(run("similar", "--test", "test-3", "--k", "5", "--json"))
    assert content["similar"] == [one.to_dict() for one in similar_texts(text_study, 3, 5)]
    assert content["supporters_among_them"] == in_both(text_study, 3, 5).both
    assert "most similar in words" in run("similar", "--test", "#3", "--k", "5")
    assert "train-7 " not in run("similar", "--train", "train-7")
    for wrong in ("5", "9..4", "a..b", "-1..4"):
        assert main(["find", str(text_study.root), f"--length={wrong}"]) == 2
        assert capsys.readouterr().err.count("\n") == 1
