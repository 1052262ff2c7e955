"""Who lives where, in sentences that end with the answer: small data of source and target texts."""

from __future__ import annotations

import csv
import random
from pathlib import Path

from engine import Study

PEOPLE = [
    f"{first}{last}" for first in ("Al", "Be", "Co", "Da") for last in ("ba", "do", "na", "ri")
]
CITIES = ("Rome", "Oslo", "Lima", "New York", "San Jose")
TEMPLATES = ("{} lives in", "The home of {} is", "You find {} in")
QUESTION = "Where does {} live?"

SEQUENCES = """\
name = "Who lives where"
seed = 5

[data]
source = "{source}"

[task]
name = "text-to-text"
max_vocabulary = 90

[algorithms.t5]
architecture = "t5-small"
architecture_options = {{ layers = 1, width = 16, heads = 2 }}
epochs = 16
learning_rate = 0.02
optimizer = "adamw"
batch_size = 16
checkpoints = 2

[search]
top_k = 20

[subset_runs]
masks = 15
removals = 2
"""


def write_facts(folder: Path) -> Path:
    """A folder with train.csv and test.csv of statements and questions: 60 and 16 rows.

    Each home is stated by every template and, for most people, asked for once.
    """
    chosen = random.Random(3)
    homes = {person: chosen.choice(CITIES) for person in PEOPLE}
    folder.mkdir(parents=True)
    for split in ("train", "test"):
        with (folder / f"{split}.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["source", "target", "subject", "kind"])
            for number, (person, city) in enumerate(homes.items()):
                if split == "test":
                    rows.writerow([QUESTION.format(person), city, person, "question"])
                    continue
                for template in TEMPLATES:
                    rows.writerow([template.format(person), city, person, "statement"])
                if number < len(PEOPLE) * 3 // 4:
                    rows.writerow([QUESTION.format(person), city, person, "question"])
    return folder


def facts_study(folder: Path) -> Study:
    """A study of statements and questions, not built."""
    return Study.create(folder / "study", SEQUENCES.format(source=write_facts(folder / "facts")))
