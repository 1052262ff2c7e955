"""Changes of texts: what each does, in any script, and what a model makes of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from engine.api import Study
from engine.applications.modeldiff.changed_examples import offered, tried
from engine.applications.modeldiff.hypothesis import measure, try_all
from engine.applications.modeldiff.text_transformations import (
    TEXT_TRANSFORMATIONS,
    apply_to_texts,
)
from engine.data.words import words
from engine.store.errors import DataloupeError

GIVEN: dict[str, dict[str, Any]] = {
    "swap-word": {"word": "film", "by": "book"},
    "append": {"suffix": "not at all"},
    "prepend": {"prefix": "well now"},
}
CHANGED: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "a word": ("swap-word", {"word": "film", "by": "book"}, "A film, FILM!", "A book, BOOK!"),
    "a capital": ("swap-word", {"word": "film", "by": "book"}, "Film it", "Book it"),
    "no part of a word": ("swap-word", {"word": "film", "by": "x"}, "filmed films", "filmed films"),
    "words in a row": ("swap-word", {"word": "not good", "by": "bad"}, "is not good.", "is bad."),
    "a word left out": ("swap-word", {"word": "not", "by": ""}, "is not good", "is good"),
    "the only word stays": ("swap-word", {"word": "good", "by": ""}, "Good!", "Good!"),
    "accents": ("swap-word", {"word": "cafe", "by": "bar"}, "un café", "un bar"),
    "Chinese": ("swap-word", {"word": "电影", "by": "书"}, "这部电影好", "这部书好"),
    "Arabic": ("swap-word", {"word": "فيلم", "by": "كتاب"}, "هذا فيلم جيد", "هذا كتاب جيد"),
    "repeated words in a row": ("swap-word", {"word": "a a", "by": "b"}, "a a a", "b a"),
    "lower": ("lower-case", {}, "A FILM Ü", "a film ü"),
    "upper": ("upper-case", {}, "a film ü", "A FILM Ü"),
    "punctuation": ("no-punctuation", {}, "Well, isn't it?", "Well  isn't it "),
    "suffix": ("append", {"suffix": "not at all"}, "good", "good not at all"),
    "prefix": ("prepend", {"prefix": "well now"}, "good", "well now good"),
    "cut": ("cut", {}, "one two three.", "one"),
    "typing": ("typos", {}, "is", "is"),
}  # fmt: skip


@pytest.mark.input_case
@pytest.mark.parametrize("case", CHANGED)
def test_what_changes(case: str) -> None:
    name, options, before, after = CHANGED[case]
    assert apply_to_texts(name, [before], 1.0, options) == [after]


@pytest.mark.parametrize("name", TEXT_TRANSFORMATIONS)
@given(texts=some.lists(some.text(max_size=40), max_size=4), intensity=some.floats(0, 1))
def test_every_transformation_keeps_a_word_and_changes_nothing_at_0(
    name: str, texts: list[str], intensity: float
) -> None:
    options = GIVEN.get(name, {})
    changed = apply_to_texts(name, texts, intensity, options)
    assert len(changed) == len(texts)
    assert apply_to_texts(name, texts, 0.0, options) == texts
    assert apply_to_texts(name, texts, intensity, options) == changed
    for one, other in zip(texts, changed, strict=True):
        assert not words(one) or words(other), (one, other)


def test_the_intensity_is_the_share_of_words() -> None:
    (text,) = apply_to_texts("upper-case", ["one two three four"], 0.5)
    assert sum(word.isupper() for word in text.split()) == 2
    (text,) = apply_to_texts("drop-words", ["one two three four"], 0.75)
    assert len(text.split()) == 1
    six = "one two three four five six"
    (text,) = apply_to_texts("shuffle-words", [six], 1.0)
    assert (
        sorted(text.split())
        == sorted(["one", "two", "three", "four", "five", "six"])
        != text.split()
    )
    assert apply_to_texts("append", ["good"], 0.5, {"suffix": "not at"}) == ["good not"]
    together = apply_to_texts("typos", ["interesting", "film"], 0.5)
    assert together[1:] == apply_to_texts("typos", ["film"], 0.5)


@pytest.mark.parametrize(
    ("name", "intensity", "options", "message"),
    [
        ("blur", 1.0, {}, "no transformation 'blur'"),
        ("append", 1.0, {}, "needs the option 'suffix'"),
        ("swap-word", 1.0, {"word": "!"}, "needs the option 'word'"),
        ("append", 1.0, {"suffix": "x" * 300}, "at most 200 characters"),
        ("append", 1.0, {"suffix": 3}, "is a text"),
        ("append", 1.0, {"colour": "red"}, "has no option 'colour'"),
        ("cut", 1.5, {}, "from 0 to 1"),
    ],
)
def test_what_is_refused(name: str, intensity: float, options: Any, message: str) -> None:
    with pytest.raises(DataloupeError, match=message):
        apply_to_texts(name, ["a film"], intensity, options)


def test_swapping_the_verb_that_decides_lowers_the_probability(text_study: Study) -> None:
    rows = [row for row, text in enumerate(text_study.table("test")["text"]) if "loved" in text]
    swap = {"word": "loved", "by": "hated"}
    found = measure(text_study, "words", "words", "swap-word", swap, [0.0, 1.0], rows)
    nothing, all_of_them = found.effects
    assert nothing.a["probability"].mean == 0
    assert all_of_them.a["probability"].mean < -0.5
    assert all_of_them.difference["margin"].mean == pytest.approx(0)


def test_all_that_need_no_option_are_tried(text_study: Study) -> None:
    assert offered(text_study) == list(TEXT_TRANSFORMATIONS)
    names = tried(text_study, {"append": {"suffix": "x"}})
    assert set(TEXT_TRANSFORMATIONS) - set(names) == {"swap-word", "prepend"}
    found = try_all(text_study, "words", "words", [1.0], np.arange(10).tolist())
    assert {one.name for one in found} == set(tried(text_study, {}))
    assert not next(one for one in found if one.name == "lower-case").strength
