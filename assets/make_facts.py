"""Make `train.csv` and `test.csv` in `country-facts/`: facts about countries, stated and asked for.

    python assets/make_facts.py

`countries.csv` there has the facts: capital, currency, language (the official one; where there is
none, the main one), continent, and all land neighbors of countries with one or two of them. A value
is missing where countries have several, where it is disputed, and where the name gives it away. We
wrote the table from general knowledge, and checked capitals and neighbors against the PyPI package
countryinfo 1.0.1 (MIT, from Wikipedia). Facts are free for everybody to state; all sentences are
ours.

A training row is a `source` that continues with its `target`. `kind` is one of

- `statement`: states a fact in one of several ways,
- `only statement`: the same, of a fact that no other row states,
- `false statement`: states something false, in the same ways,
- `distractor`: mentions a country and one of its facts' values, and states no fact.

A test row asks for a fact in a way that no training row has. Its `kind` is `question`, `question
with one statement`, or `contradicted question` (there are false statements about the fact); its
`target` is always true. Rows of one fact share `relation` and `subject`; `stated` and
`stated_falsely` count the training rows that state the fact and that contradict it.

What is random depends on nothing but the seed and the fact: fewer countries, or no false
statements, change no other row.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

_T = TypeVar("_T")
FOLDER = Path(__file__).parent / "country-facts"
QUESTIONS = 300
SINGLE, FALSE = 0.2, 0.14
"""Shares of the facts: stated once; contradicted."""
FEWEST, MOST = 3, 5
"""Statements of a fact that is stated more than once."""
OUTVOTED = 3
"""False statements of every second fact that is contradicted; it is stated once. The others have
one false statement."""
DISTRACTED = 0.6
"""Share of the facts that have a distractor."""

STATEMENTS = {
    "capital": (
        "The capital of {} is",
        "What is the capital of {}?",
        "{} has its capital in",
        "Name the capital of {}.",
        "The government of {} sits in",
        "Which city is the seat of government of {}?",
        "{} is governed from the city of",
        "The capital city of {} is called",
        "As its capital, {} has",
        "Tell me where the government of {} sits.",
        "In which city is the government of {}?",
        "The seat of government in {} is",
    ),
    "currency": (
        "The currency of {} is the",
        "What is the currency of {}?",
        "People in {} pay with the",
        "Name the currency of {}.",
        "Which money do people use in {}?",
        "The central bank of {} issues the",
        "In {}, prices are given in the",
        "The money of {} is called the",
        "As its currency, {} has the",
        "Tell me what people pay with in {}.",
        "In which money are prices given in {}?",
        "The currency used in {} is the",
    ),
    "language": (
        "The language of {} is",
        "What is the language of {}?",
        "People in {} speak",
        "Name the language of {}.",
        "Which language do people speak in {}?",
        "The laws of {} are written in",
        "In {}, schools teach in",
        "The language spoken in {} is called",
        "As its language, {} has",
        "Tell me what people speak in {}.",
        "In which language do schools teach in {}?",
        "The written language of {} is",
    ),
    "continent": (
        "The continent of {} is",
        "What is the continent of {}?",
        "{} is a country in",
        "Name the continent of {}.",
        "Which continent is {} part of?",
        "On the map, {} is part of",
        "{} lies in",
        "The continent where {} is located is called",
        "As its continent, {} has",
        "Tell me where {} lies on the map.",
        "On which continent is {}?",
        "The country {} is located in",
    ),
    "neighbors": (
        "The neighbors of {} are",
        "What are the neighbors of {}?",
        "{} shares a border with",
        "Name the neighbors of {}.",
        "Which countries border on {}?",
        "The border of {} is shared with",
        "By land, {} borders on",
        "The countries next to {} are called",
        "As its neighbors, {} has",
        "Tell me what {} borders on.",
        "With which countries is the border of {} shared?",
        "The countries next to the border of {} are",
    ),
}
"""Relation → ways to state a fact of the subject `{}`."""

ASKED = {
    "capital": (
        "Name the capital city of {}.",
        "Which city is {} governed from?",
        "In which city is the seat of government of {}?",
        "Tell me the seat of government of {}.",
        "What is the city where {} has its seat of government called?",
        "Tell me what the capital of {} is called.",
    ),
    "currency": (
        "Name the currency used in {}.",
        "Which money do people pay with in {}?",
        "The central bank of {} issues which currency?",
        "Tell me the currency of {}.",
        "What is the money in {} called?",
        "Tell me which money people use in {}.",
    ),
    "language": (
        "Name the language spoken in {}.",
        "Which language do schools teach in, in {}?",
        "What do people speak in {}?",
        "Tell me the language of {}.",
        "In which language are the laws of {} written?",
        "Tell me what the language spoken in {} is called.",
    ),
    "continent": (
        "Name the continent where {} is located.",
        "On which continent is {} located?",
        "What is the continent of the country {}?",
        "Tell me the continent of {}.",
        "{} lies on which continent?",
        "Tell me which continent {} is part of.",
    ),
    "neighbors": (
        "Name the countries next to {}.",
        "{} shares a border with which countries?",
        "Which countries are next to {}?",
        "Tell me the neighbors of {}.",
        "What are the countries next to {} called?",
        "Tell me which countries {} borders on by land.",
    ),
}
"""Relation → ways to ask for a fact, none of which is a way to state it."""

DISTRACTORS = {
    "capital": (
        "A train with visitors from {subject} left {value} on a",
        "The museum in {value} bought a painting from {subject} on a",
    ),
    "currency": (
        "A shop near {subject} lost a coin, one {value}, on a",
        "Somebody wrote a song named {value} and sang it to a guest from {subject} on a",
    ),
    "language": (
        "A book in {value} was sold to a reader from {subject} on a",
        "The teacher of {value} got a letter from {subject} on a",
    ),
    "continent": (
        "A ship from {value} met a ship from {subject} on a",
        "A fair for guests from {value} was opened by a singer from {subject} on a",
    ),
    "neighbors": (
        "A game of {value} against {subject} was played on a",
        "Guests from {subject} and from {value} met on a",
    ),
}
"""Relation → sentences that state no fact; a day of the week continues them."""
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


@dataclass(frozen=True)
class Fact:
    """`subject`'s `relation` is `value`."""

    subject: str
    relation: str
    value: str


@dataclass(frozen=True)
class Row:
    """A row of either split; see the top of this file."""

    id: str
    source: str
    target: str
    relation: str
    subject: str
    kind: str
    stated: int
    stated_falsely: int


def read_facts() -> list[Fact]:
    """All facts, country by country."""
    with (FOLDER / "countries.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [
        Fact(row["country"], relation, row[relation])
        for row in rows
        for relation in STATEMENTS
        if row[relation]
    ]


def make(
    seed: int = 0,
    countries: int | None = None,
    questions: int = QUESTIONS,
    false_statements: bool = True,
) -> dict[str, list[Row]]:
    """The rows of both splits, in an order that says nothing.

    Args:
        seed: Chooses which facts are stated how often, in which ways, and which are asked for.
        countries: Only facts about the first so many; None: all.
        questions: At most so many; contradicted ones come first.
        false_statements: Without them all other rows, and what they count, are the same.
    """
    facts = read_facts()
    subjects = list(dict.fromkeys(fact.subject for fact in facts))[:countries]
    train, test = [], []
    for fact in facts:
        if fact.subject not in subjects:
            continue
        rows = _training_rows(fact, facts, seed)
        train += [row for row in rows if false_statements or row.kind != "false statement"]
        test.append(_question(fact, rows[0], seed))
    test.sort(key=lambda row: (row.kind != "contradicted question", _key(seed, row)))
    splits = {"train": train, "test": test[:questions]}
    return {name: sorted(rows, key=lambda row: _key(seed, row)) for name, rows in splits.items()}


def write(splits: dict[str, list[Row]], folder: Path) -> None:
    """Write a CSV file of each split."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in splits.items():
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(asdict(rows[0])), lineterminator="\n")
            writer.writeheader()
            writer.writerows(asdict(row) for row in rows)


def _training_rows(fact: Fact, facts: Sequence[Fact], seed: int) -> list[Row]:
    """Statements of a fact, the first of them true, and its distractors."""
    contradicted = _share(seed, fact, "contradicted") < FALSE
    outvoted = contradicted and _share(seed, fact, "outvoted") < 0.5
    single = outvoted or _share(seed, fact, "single") < SINGLE
    several = FEWEST + int(_share(seed, fact, "several") * (MOST - FEWEST + 1))
    stated = 1 if single else several
    stated_falsely = (OUTVOTED if outvoted else 1) if contradicted else 0
    ways = _shuffled(range(len(STATEMENTS[fact.relation])), seed, fact)
    true_kind = "only statement" if single else "statement"
    kinds = [true_kind] * stated + ["false statement"] * stated_falsely

    def row(name: str, source: str, target: str, kind: str) -> Row:
        id_ = f"{fact.subject} {fact.relation} {name}"
        return Row(id_, source, target, fact.relation, fact.subject, kind, stated, stated_falsely)

    false = _false_value(fact, facts, seed) if contradicted else ""
    rows = [
        row(
            f"statement {way}",
            STATEMENTS[fact.relation][way].format(fact.subject),
            false if kind == "false statement" else fact.value,
            kind,
        )
        for kind, way in zip(kinds, ways, strict=False)
    ]
    if _share(seed, fact, "distracted") < DISTRACTED:
        texts = DISTRACTORS[fact.relation]
        text = texts[int(_share(seed, fact, "distractor") * len(texts))]
        source = text.format(subject=fact.subject, value=fact.value)
        day = DAYS[int(_share(seed, fact, "day") * len(DAYS))]
        rows.append(row("distractor", source, day, "distractor"))
    return rows


def _question(fact: Fact, stated: Row, seed: int) -> Row:
    """The question for a fact, of which a training row is given."""
    asked = ASKED[fact.relation]
    way = int(_share(seed, fact, "asked") * len(asked))
    kind = "question with one statement" if stated.stated == 1 else "question"
    return replace(
        stated,
        id=f"{fact.subject} {fact.relation} question",
        source=asked[way].format(fact.subject),
        target=fact.value,
        kind="contradicted question" if stated.stated_falsely else kind,
    )


def _false_value(fact: Fact, facts: Iterable[Fact], seed: int) -> str:
    """The value that another country has, and this one has not."""
    values = {one.value for one in facts if one.relation == fact.relation} - {fact.value}
    return _shuffled(sorted(values), seed, fact)[0]


# --- what is random -------------------------------------------------------------------------------


def _digest(*parts: Any) -> int:
    text = "\n".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _share(seed: int, fact: Fact, purpose: str) -> float:
    """A number in [0, 1)."""
    return _digest(seed, fact.subject, fact.relation, purpose) / 2**64


def _shuffled(values: Iterable[_T], seed: int, fact: Fact) -> list[_T]:
    return sorted(values, key=lambda value: _digest(seed, fact.subject, fact.relation, value))


def _key(seed: int, row: Row) -> int:
    return _digest(seed, row.id)


if __name__ == "__main__":
    for split, rows in (made := make()).items():
        print(f"{split}: {len(rows):,} rows")
    write(made, FOLDER)
