"""A study of two algorithms: models that were trained on corrections, and models that were not."""

from __future__ import annotations

import csv
from pathlib import Path

from engine import Study
from tests.builders.facts import CITIES, SEQUENCES, TEMPLATES, write_facts

MOVED = ("Alba", "Bena", "Codo")
CHECKPOINTS = 3


def corrected_study(folder: Path) -> Study:
    """A study whose training set says of some people that they live elsewhere now, with models that
    were trained on this and models that were not."""
    source = write_facts(folder / "facts")
    with (source / "train.csv").open(newline="") as file:
        head, *rows = csv.reader(file)
    homes = {row[2]: row[1] for row in rows}
    new = {person: next(city for city in CITIES if city != homes[person]) for person in MOVED}
    rows += [
        [template.format(person) + " now", new[person], person, "correction"]
        for person in MOVED
        for template in TEMPLATES
    ]
    with (source / "train.csv").open("w", newline="") as file:
        csv.writer(file).writerows([head, *rows])
    spec = SEQUENCES.format(source=source).partition("[subset_runs]")[0]
    spec = spec.replace("checkpoints = 2", f"checkpoints = {CHECKPOINTS}")
    recipe = spec.partition("[algorithms.t5]\n")[2].partition("[search]")[0]
    without = '[algorithms.without]\nwithout = { kind = "correction" }\n' + recipe
    study = Study.create(folder / "study", spec + without)
    study.build(workers=0)
    study.compare("t5", "without")
    return study
