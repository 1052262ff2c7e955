"""A study of two algorithms: models that were trained on corrections, and models that were not."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from engine import Study
from engine.build.retraining import model_without
from engine.training.weights import save_weights
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
    study = Study.create(folder / "study", spec)
    study.build(workers=0)
    removed = tuple(np.flatnonzero(study.table("train")["kind"] == "correction").tolist())
    files = [f"without-{seed}.safetensors" for seed in range(CHECKPOINTS)]
    for seed, name in enumerate(files):
        model = model_without(study, "t5", removed, seed, "cpu")
        save_weights(study.root / name, model, "0" * 16, {})
    toml = study.root / "study.toml"
    names = ", ".join(f'"{name}"' for name in files)
    recipe = '[algorithms.without]\narchitecture = "t5-small"\narchitecture_options = '
    recipe += f"{{ layers = 1, width = 16, heads = 2 }}\nweights = [{names}]\n"
    toml.write_text(f"{toml.read_text()}\n{recipe}")
    found = Study.open(study.root)
    found.build(workers=0)
    found.compare("t5", "without")
    return found
