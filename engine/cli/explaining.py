"""explain, whatif: the training examples behind a prediction, and the effect of removing some."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from engine.api import Study
from engine.applications.joint_removal import SUPPORTERS, StrongestTogether, strongest_together
from engine.attribution.evaluation.counterfactual import Counterfactual
from engine.cli.arguments import Verbs, add_attribution, add_json
from engine.cli.exact import add_exact, check_options, explain_exactly
from engine.cli.printing import WIDE, console, one_line, print_json, table
from engine.store.errors import SpecError
from engine.store.quantities import (
    CHANGE,
    CONFIDENCE,
    CORRELATION,
    EFFECT_RATIO,
    INFLUENCE,
    OUTPUT,
    PREDICTIONS,
    SCORE,
)
from engine.store.records import Explanation, Influence
from engine.store.text import counted
from engine.study.calibration_advice import calibration_advice
from engine.study.examples import FILE, TEXT, read_column, read_texts_of
from engine.study.rankings import name_influences
from engine.study.training_datamodels import read_training_datamodel

LINES_OF_TEXT = 4
"""Lines of the terminal that the text of the explained example may take."""
LEAST_OF_TEXT = 20
"""Characters of the texts of training examples shown in a narrow terminal."""


def add_verbs(verbs: Verbs) -> None:
    """Register the verbs of this file."""
    explain = verbs.add_parser(
        "explain", help="show which training examples a prediction depends on"
    )
    explain.add_argument("study", type=Path, help="folder of the study")
    which = explain.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "--test",
        metavar="ID",
        help="id of a test example, or its row as #17; with --exact also several, separated by "
        "commas, or a file that lists them, such as an exported slice: one answer for their mean "
        "output",
    )
    which.add_argument(
        "--mistakes",
        metavar="CLASS",
        help="all wrong predictions of this true class together; needs --exact",
    )
    which.add_argument(
        "--train",
        metavar="ID",
        help="id of a training example, or its row as #17, if the study has datamodels of training "
        "examples (training_targets)",
    )
    explain.add_argument(
        "--k", type=int, default=10, help="examples to show of each sign (default: %(default)s)"
    )
    explain.add_argument(
        "--output",
        metavar="NAME",
        help="what the scores answer, such as margin, predicted, class:Coat or 'Coat>Shirt' "
        "(default: the stored output); others are computed live by TRAK",
    )
    add_exact(explain)
    add_attribution(explain)
    add_json(explain)
    explain.set_defaults(verb=_explain)

    what_if = verbs.add_parser(
        "whatif", help="predict how removing training examples would change predictions"
    )
    what_if.add_argument("study", type=Path, help="folder of the study")
    removed = what_if.add_mutually_exclusive_group(required=True)
    removed.add_argument(
        "--remove",
        metavar="IDS",
        help="ids, or rows as #17, separated by commas, or a file that lists them",
    )
    removed.add_argument(
        "--strongest-together",
        metavar="ID",
        help="a test example: the training examples that support its prediction most together, "
        "where near copies stand in for each other",
    )
    what_if.add_argument(
        "--size",
        type=int,
        help=f"training examples that --strongest-together removes (default: {SUPPORTERS})",
    )
    what_if.add_argument(
        "--k", type=int, default=10, help="predictions to show of each sign (default: %(default)s)"
    )
    what_if.add_argument(
        "--by",
        metavar="COLUMN",
        help="column of the data whose groups the effect is averaged over (default: the class)",
    )
    add_attribution(what_if)
    add_json(what_if)
    what_if.set_defaults(verb=_what_if)


# --- explain -------------------------------------------------------------------------------------


def _explain(options: argparse.Namespace) -> int:
    check_options(options)
    study = Study.open(options.study)
    if options.exact:
        return explain_exactly(study, options)
    if options.train is not None:
        if options.output is not None:
            raise SpecError("--output is for test examples: use it with --test.")
        return _explain_training(study, options)
    explanation = study.explain(
        options.test, options.k, options.algorithm, options.method, options.output
    )
    if options.json:
        print_json(explanation.to_dict())
    else:
        _print_explanation(console(), explanation, PREDICTIONS[study.dataset.predicted].name)
    return 0


def _explain_training(study: Study, options: argparse.Namespace) -> int:
    found = read_training_datamodel(study, options.train, options.algorithm)
    sides = name_influences(study, *(found.strongest(options.k, sign) for sign in (1, -1)))
    # The weights of a datamodel are in the unit of the output.
    helping, hurting = ([replace(one, influence=one.score) for one in side] for side in sides)
    example = study.table("train").iloc[found.row]
    if options.json:
        content = {
            "row": found.row,
            "id": str(example["id"]),
            "label": str(example["label"]),
            "file": example.get(FILE),
            "text": example.get(TEXT),
            "itself": found.itself,
            "bias": found.bias,
            "correlation": found.correlation,
            "helping": [asdict(one) for one in helping],
            "hurting": [asdict(one) for one in hurting],
        }
        print_json(content)
        return 0
    shown = console()
    shown.print(
        Text.assemble(
            (str(example["id"]), "bold"),
            " is ",
            (str(example["label"]), "bold"),
            f"; training on it changes its own {study.dataset.output} by "
            f"{INFLUENCE.text(found.itself)}",
        )
    )
    _print_content(shown, example.get(FILE), example.get(TEXT))
    for title, side in (
        (f"Other training examples that raise its {study.dataset.output}", helping),
        (f"Other training examples that lower its {study.dataset.output}", hurting),
    ):
        shown.print(f"\n{title}")
        shown.print(_influence_table(shown, side, study.dataset.output))
    shown.print(
        Text(
            "\nWeights of a sparse datamodel, correlation on held-out runs "
            f"{CORRELATION.text(found.correlation)}",
            style="dim",
        )
    )
    return 0


def _print_explanation(shown: Console, explanation: Explanation, predicts: str) -> None:
    example = Text.assemble((explanation.id, "bold"))
    if explanation.label:
        example = Text.assemble(example, " is ", (explanation.label, "bold"))
    if explanation.predicted is None or explanation.output is None:
        shown.print(example + Text("; no model of this study has predicted it yet"))
    else:
        details = [f"{explanation.output_name} {OUTPUT.text(explanation.output)}"]
        if explanation.confidence is not None:
            details.insert(0, f"confidence {CONFIDENCE.text(explanation.confidence)}")
        if explanation.correct is not None:
            details.insert(0, "correct" if explanation.correct else "wrong")
        predicted = f", {predicts} ", (explanation.predicted, "bold")
        shown.print(Text.assemble(example, *predicted, f" ({', '.join(details)})"))
        shown.print(Text(explanation.question, style="bold"))
    _print_content(shown, explanation.file, explanation.text)
    for title, side in (
        (f"Supporting: raised {explanation.output_title}", explanation.supporting),
        (f"Opposing: lowered {explanation.output_title}", explanation.opposing),
    ):
        shown.print(f"\n{title}")
        shown.print(_influence_table(shown, side, explanation.output_name))
    shown.print(Text(f"\n{explanation.badge}", style="dim"), soft_wrap=True)


def _print_content(shown: Console, file: str | None, text: str | None) -> None:
    """The file or the text of the example; a text is shortened to a few lines of the terminal."""
    if file is not None:
        shown.print(f"File {one_line(file)}", soft_wrap=True)
    if text is not None:
        shown.print(f"“{one_line(text, most=LINES_OF_TEXT * min(shown.width, WIDE))}”")


def _influence_table(shown: Console, side: Sequence[Influence], output: str) -> Table:
    """The examples of one side, with their files or texts; texts are shortened to one line.

    Args:
        output: Name of the model output that their influences are about.
    """
    amounts = [one.influence for one in side]
    calibrated = bool(side) and None not in amounts
    has_files = any(one.file is not None for one in side)
    has_texts = any(one.text is not None for one in side)
    rows = [[str(rank), one.id, one.label] for rank, one in enumerate(side, 1)]
    for row, one in zip(rows, side, strict=True):
        row += [] if one.influence is None else [INFLUENCE.text(one.influence)]
        row.append(SCORE.text(one.score))
        row += ["–" if one.file is None else one_line(one.file)] * has_files
    numbers = [*[INFLUENCE.title(output)] * calibrated, SCORE.title()]
    heads = ["", "id", "label", *numbers, *["file"] * has_files]
    if has_texts:
        widths = [max(map(cell_len, column)) + 3 for column in zip(heads, *rows, strict=True)]
        room = min(max(shown.width - sum(widths) - 4, LEAST_OF_TEXT), WIDE)
        for row, one in zip(rows, side, strict=True):
            row.append(one_line(one.text or "", most=room))
    listed = table(*heads, *["text"] * has_texts)
    for row in rows:
        listed.add_row(*row)
    return listed


# --- whatif --------------------------------------------------------------------------------------


def _what_if(options: argparse.Namespace) -> int:
    from engine.applications.replay.removals import exact_changes
    from engine.cli.exact import exact_content, print_exact_changes
    from engine.study.removal_sets import read_examples

    if options.size is not None and options.remove is not None:
        raise SpecError("--size is for --strongest-together: --remove names every example.")
    study = Study.open(options.study)
    together = None
    if options.remove is None:
        size = SUPPORTERS if options.size is None else options.size
        together = strongest_together(study, options.strongest_together, size, options.algorithm)
    rows = read_examples(study, options.remove) if together is None else together.rows
    found = study.counterfactual(rows, options.algorithm, options.method, options.by)
    exact = exact_changes(study, found.algorithm, found.removed)
    if options.json:
        files = read_texts_of(study, "train", FILE, found.removed)
        content = {**found.to_dict(), "removed_files": files, "exact": exact_content(study, exact)}
        if together is not None:
            content["together"] = {
                "rows": together.rows.tolist(),
                "ratio": together.ratio,
                "checkpoints": together.checkpoints,
            }
        print_json(content, indent=None)
    else:
        if together is not None:
            _print_together(console(), study, together)
        _print_counterfactual(console(), study, found, options.k)
        print_exact_changes(console(), study, found, exact[: options.k])
    return 0


def _print_together(shown: Console, study: Study, together: StrongestTogether) -> None:
    shown.print(
        f"The {len(together.rows):,} that support it most together: "
        f"{', '.join(study.table('train')['id'].astype(str).iloc[together.rows])}.",
        soft_wrap=True,
    )
    shown.print(
        f"Estimated effect of removing them: {EFFECT_RATIO.text(together.ratio)} times that of the "
        f"{len(together.rows):,} strongest one by one (one Newton step, "
        f"{counted(together.checkpoints, 'checkpoint')})."
    )


def _print_counterfactual(shown: Console, study: Study, found: Counterfactual, k: int) -> None:
    unit = f"change of the {found.output}" if found.calibrated else "sum of scores (no unit)"
    by_group = table("group", f"mean {unit}")
    for label, mean in sorted(found.by_group.items(), key=lambda item: item[1].mean):
        by_group.add_row(
            label, CHANGE.interval(mean) if found.calibrated else CHANGE.text(mean.mean)
        )
    shown.print(f"Predicted without {counted(len(found.removed), 'training example')}:")
    if found.by_group:
        shown.print(by_group)
    tests = study.table("test")[["id", "label"]]
    files = read_column(study, "test", FILE)
    heads = "id", "label", unit, f"{found.output} before → after", "flips"
    most = table(*heads, *([] if files is None else ["file"]))
    flips = set(found.flips.tolist())
    for row in [*found.strongest(-1, k), *found.strongest(1, k)[::-1]]:
        id_, label = tests.iloc[row]
        file = [] if files is None else [one_line(files[int(row)].as_py() or "–")]
        flip = "–" if not found.can_flip else "yes" if int(row) in flips else "no"
        most.add_row(str(id_), str(label), _change(found, row), _ends(found, row), flip, *file)
    shown.print(most)
    if found.can_flip:
        shown.print(
            f"Predicted to flip: {len(flips):,} of {len(tests):,} ({len(found.lost):,} from right "
            f"to wrong, {len(found.won):,} from wrong to right)."
        )
    if not found.calibrated:
        shown.print(
            "These scores are not calibrated: their order shows which predictions change most, "
            "but their size has no meaning. "
            + calibration_advice(study, found.algorithm, found.method),
            soft_wrap=True,
        )
    if found.emptied:
        emptied = ", ".join(found.emptied)
        shown.print(f"No training example of {emptied} would be left, so do not trust this.")
    badge = study.badge(found.algorithm, found.method)
    shown.print(Text(f"\n{badge}", style="dim"), soft_wrap=True)


def _change(found: Counterfactual, row: int) -> str:
    if found.low is None or found.high is None:
        return CHANGE.text(found.change[row])
    return CHANGE.within(found.change[row], found.low[row], found.high[row])


def _ends(found: Counterfactual, row: int) -> str:
    """The output of a test example, before and after the removal."""
    if found.before is None:
        return "–"
    if found.after is None:
        return OUTPUT.text(found.before[row])
    return OUTPUT.change(found.before[row], found.after[row])
