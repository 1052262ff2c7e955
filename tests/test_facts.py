"""The facts that ship: what is true is known, no question repeats a statement's way, and the same
seed gives the same bytes. How scores are judged by them: MRR and recall, ties included."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import asdict
from itertools import permutations
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assets.make_facts import ASKED, DISTRACTORS, FOLDER, STATEMENTS, Row, make, read_facts, write
from benchmarks.facts_measures import recalls, reciprocal_ranks

VALUES = {(fact.subject, fact.relation): fact.value for fact in read_facts()}
seeds = st.integers(0, 10**6)


def fact(row: Row) -> tuple[str, str]:
    return row.subject, row.relation


def frame(row: Row) -> str:
    return row.source.replace(row.subject, "{}")


def test_the_files_that_ship_are_those_of_seed_0(tmp_path) -> None:
    write(make(), tmp_path)
    for name in ("train.csv", "test.csv"):
        assert (tmp_path / name).read_bytes() == (FOLDER / name).read_bytes()


def test_sizes_that_ship() -> None:
    made = make()
    assert 2000 <= len(made["train"]) <= 3000
    assert len(made["test"]) == 300
    assert {row.relation for row in made["test"]} == set(STATEMENTS)


@settings(max_examples=10, deadline=None)
@given(seeds)
def test_only_false_statements_are_false(seed: int) -> None:
    made = make(seed, countries=30)
    for row in made["train"]:
        if row.kind in ("statement", "only statement"):
            assert row.target == VALUES[fact(row)]
        elif row.kind == "false statement":
            assert row.target != VALUES[fact(row)]
            assert row.target in VALUES.values()
        else:
            assert row.kind == "distractor"
            assert row.target.endswith("day")
    assert all(row.target == VALUES[fact(row)] for row in made["test"])


@settings(max_examples=10, deadline=None)
@given(seeds)
def test_every_question_counts_its_statements(seed: int) -> None:
    made = make(seed, countries=30)
    kinds = ("statement", "only statement")
    true = Counter(fact(row) for row in made["train"] if row.kind in kinds)
    false = Counter(fact(row) for row in made["train"] if row.kind == "false statement")
    for row in [*made["train"], *made["test"]]:
        assert row.stated == true[fact(row)] >= 1
        assert row.stated_falsely == false[fact(row)]
    for row in made["train"]:
        if row.kind in kinds:
            assert (row.kind == "only statement") == (row.stated == 1)
    for row in made["test"]:
        assert (row.kind == "contradicted question") == (row.stated_falsely > 0)
        if row.kind != "contradicted question":
            assert (row.kind == "question with one statement") == (row.stated == 1)


@settings(max_examples=10, deadline=None)
@given(seeds)
def test_no_question_is_asked_in_a_way_of_training(seed: int) -> None:
    made = make(seed, countries=40)
    assert not {frame(row) for row in made["train"]} & {frame(row) for row in made["test"]}
    assert not {row.source for row in made["train"]} & {row.source for row in made["test"]}
    sources = Counter(row.source for row in made["train"])
    assert max(sources.values()) == 1  # no fact twice in one way


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.casefold()))


def test_questions_ask_in_words_that_training_has() -> None:
    """Otherwise no model could know what they ask for."""
    made = make()
    known = set().union(*(words(row.source) for row in made["train"]))
    assert set().union(*(words(row.source) for row in made["test"])) <= known
    for relation, asked in ASKED.items():
        ways = {one: set().union(*map(words, some)) for one, some in STATEMENTS.items()}
        own = ways.pop(relation) - set().union(*ways.values())
        for question in asked:
            assert words(question) & own, question


def test_distractors_name_subject_and_value() -> None:
    made = make(countries=60)
    some = [row for row in made["train"] if row.kind == "distractor"]
    assert len(some) > 50
    for row in some:
        assert row.subject in row.source
        assert VALUES[fact(row)] in row.source
    assert set(DISTRACTORS) == set(STATEMENTS) == set(ASKED)


@settings(max_examples=5, deadline=None)
@given(seeds)
def test_the_same_seed_gives_the_same_rows_and_another_gives_others(seed: int) -> None:
    assert make(seed, countries=10) == make(seed, countries=10)
    assert make(seed, countries=10) != make(seed + 1, countries=10)


def test_fewer_countries_change_no_other_row() -> None:
    few, all_ = make(countries=20, questions=1000), make(questions=1000)
    subjects = {row.subject for row in few["train"]}
    assert len(subjects) == 20
    for name, rows in few.items():
        assert rows == [row for row in all_[name] if row.subject in subjects]


def test_without_false_statements_the_rest_is_the_same() -> None:
    whole, true = make(), make(false_statements=False)
    kept = [row for row in whole["train"] if row.kind != "false statement"]
    assert len(kept) < len(whole["train"])
    assert true == {"train": kept, "test": whole["test"]}


def test_ids_are_unique() -> None:
    made = make()
    ids = [row.id for rows in made.values() for row in rows]
    assert len(set(ids)) == len(ids)


def test_contradicted_questions_come_first_in_a_limit() -> None:
    all_ = make(countries=60, questions=1000)["test"]
    contradicted = {row.id for row in all_ if row.kind == "contradicted question"}
    few = {row.id for row in make(countries=60, questions=len(contradicted) + 3)["test"]}
    assert len(few) == len(contradicted) + 3
    assert few > contradicted


# --- MRR and recall -------------------------------------------------------------------------------


def test_ranks_by_hand() -> None:
    scores = np.array([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0], [5.0, 4.0, 4.5]])
    true = np.array([[0, 1, 0], [0, 0, 1], [0, 1, 1]], bool)
    np.testing.assert_allclose(reciprocal_ranks(scores, true), [1 / 2, 1, 1 / 2])
    np.testing.assert_allclose(recalls(scores, true, 1), [0, 1, 0])
    np.testing.assert_allclose(recalls(scores, true, 2), [1, 1, 1 / 2])
    np.testing.assert_allclose(recalls(scores, true, 10), [1, 1, 1])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 2), min_size=2, max_size=5), st.data())
def test_equal_scores_count_as_in_a_random_order(values: list[int], data: st.DataObject) -> None:
    """Recall is the mean over all orders of equal scores, and the rank is the mean rank."""
    n = len(values)
    true = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    true[data.draw(st.integers(0, n - 1))] = True
    k = data.draw(st.integers(1, n))
    ranks, shares = [], []
    for order in permutations(range(n)):
        best = sorted(order, key=lambda row: -values[row])  # stable: ties in this order
        ranks.append(1 + next(place for place, row in enumerate(best) if true[row]))
        shares.append(sum(true[row] for row in best[:k]) / min(k, true.sum()))
    scores, is_true = np.array([values], float), true[None]
    np.testing.assert_allclose(reciprocal_ranks(scores, is_true), 1 / np.mean(ranks))
    np.testing.assert_allclose(recalls(scores, is_true, k), np.mean(shares))


def test_a_query_without_a_true_row_is_an_error() -> None:
    with pytest.raises(ValueError, match="query 1 has no true row"):
        reciprocal_ranks(np.zeros((2, 2)), np.array([[True, False], [False, False]]))


def test_which_rows_state_the_fact_of_a_question() -> None:
    from benchmarks.facts_study import FALSE, stating

    made = make(countries=30)
    tables = {name: pd.DataFrame([asdict(row) for row in rows]) for name, rows in made.items()}
    study = SimpleNamespace(table=tables.__getitem__)
    true, false = stating(study), stating(study, (FALSE,))
    for place, question in enumerate(made["test"]):
        assert true[place].sum() == question.stated
        assert false[place].sum() == question.stated_falsely
        for row in np.flatnonzero(true[place] | false[place]).tolist():
            assert fact(made["train"][row]) == fact(question)
        targets = {made["train"][row].target for row in np.flatnonzero(true[place]).tolist()}
        assert targets == {question.target}
