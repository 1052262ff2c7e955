"""A study of texts works from its data to explanations, with only its own task file."""

from __future__ import annotations

from engine import Study
from tests.builders.sentences import BAD, GOOD


def test_the_model_learns_sentences_and_the_table_shows_them(text_study: Study) -> None:
    assert text_study.dataset.views == ["text"]
    assert text_study.predictions("test")["correct"].mean() > 0.9
    assert text_study.table("test")["text"][0]


def test_supporting_examples_share_the_label_and_the_decisive_verb(text_study: Study) -> None:
    train, test = text_study.table("train")["text"], text_study.table("test")["text"]
    same_label = same_verb = 0
    for row in range(40):
        (verb,) = set(test[row].split()) & set(GOOD + BAD)
        explanation = text_study.explain(row, k=5)
        for influence in explanation.supporting:
            same_label += influence.label == explanation.label
            same_verb += verb in train[influence.row].split()
    assert same_label >= 0.85 * 200
    assert same_verb >= 0.35 * 200  # by chance, a quarter of a label's examples share the verb
