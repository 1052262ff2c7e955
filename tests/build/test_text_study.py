"""The task seam holds: texts go from sentences to Explain through their own task file alone."""

from __future__ import annotations

from engine import Study
from tests.builders.sentences import BAD, GOOD


def test_sentences_are_learnt_and_shown(text_study: Study) -> None:
    assert text_study.dataset.display == "text"
    assert text_study.predictions("test")["correct"].mean() > 0.9
    assert text_study.table("test")["text"][0]


def test_supporters_share_the_label_and_the_word_that_decides(text_study: Study) -> None:
    train, test = text_study.table("train")["text"], text_study.table("test")["text"]
    same_label = same_verb = 0
    for row in range(40):
        (verb,) = set(test[row].split()) & set(GOOD + BAD)
        explanation = text_study.explain(row, k=5)
        for influence in explanation.supporting:
            same_label += influence.label == explanation.label
            same_verb += verb in train[influence.row].split()
    assert same_label >= 0.85 * 200
    assert same_verb >= 0.35 * 200  # a quarter of the examples of a label have its verb
