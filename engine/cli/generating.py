"""generate: let a study's checkpoints make pictures, as the test split of a new study."""

from __future__ import annotations

import argparse
from pathlib import Path

from engine.api import Study
from engine.build.generating import GUIDANCE, generate
from engine.cli.arguments import Verbs
from engine.cli.trusting import ask_to_trust
from engine.store.text import counted


def add_verbs(verbs: Verbs) -> None:
    """Register the verb of this file."""
    verb = verbs.add_parser(
        "generate",
        help="let the checkpoints of a study of diffusion make pictures, as the test split of a "
        "new study",
    )
    verb.add_argument("study", type=Path, help="folder of the study")
    verb.add_argument("new", type=Path, help="folder of the new study")
    for name, default, what in (
        ("--count", 40, "pictures that each checkpoint makes"),
        ("--seed", 0, "of the first picture; the others follow"),
        ("--steps", 50, "steps from noise to a picture"),
        ("--frames", 8, "steps that are kept of each"),
    ):
        verb.add_argument(name, type=int, default=default, help=f"{what} (default: %(default)s)")
    verb.add_argument(
        "--guidance",
        type=float,
        default=GUIDANCE,
        help="how far pictures are moved away from those of other classes: larger is clearer and "
        "less varied, 0 is what models were trained for (default: %(default)s)",
    )
    verb.add_argument("--algorithm", metavar="NAME", help="default: the study's first")
    verb.set_defaults(verb=_generate)


def _generate(options: argparse.Namespace) -> int:
    study = Study.open(options.study)
    ask_to_trust(study)
    names = ("count", "seed", "steps", "frames", "guidance", "algorithm")
    given = {name: getattr(options, name) for name in names}
    new = generate(study, options.new, **given)
    (algorithm,) = new.spec.algorithms.values()
    print(
        f"Each of {counted(algorithm.checkpoints, 'checkpoint')} made "
        f"{counted(options.count, 'picture')}. To attribute them, run: dataloupe build {new.root}"
    )
    return 0
