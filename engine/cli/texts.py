"""find, similar: texts by their words and length; training texts that say the same words."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from engine.api import Study
from engine.cli.arguments import Verbs, add_attribution, add_json
from engine.cli.printing import WIDE, console, one_line, print_json, table
from engine.store.errors import DataloupeError
from engine.store.layout import Split
from engine.store.quantities import BM25
from engine.store.text import counted
from engine.study.examples import TEXT, read_texts_of
from engine.study.methods import has_scores
from engine.study.names import read_names_of, resolve_algorithm, resolve_method
from engine.study.similar_texts import COMPARED, in_both, similar_texts
from engine.study.text_search import find_texts, text_lengths


def add_verbs(verbs: Verbs) -> None:
    """Register the verbs of this file."""
    find = verbs.add_parser("find", help="find examples by the words and length of their texts")
    find.add_argument("study", type=Path, help="folder of the study")
    find.add_argument(
        "words",
        nargs="?",
        default="",
        help='words that must all be in the text, ignoring case and accents; "a phrase" in '
        "quotes; the beginning of a word as begin*",
    )
    find.add_argument(
        "--split", choices=("test", "train"), default="test", help="default: %(default)s"
    )
    find.add_argument(
        "--length",
        metavar="FROM..TO",
        default="..",
        help="fewest and most words of the text, as in 5..40, 5.. or ..40",
    )
    find.add_argument(
        "--k", type=int, default=20, help="texts to show (default: %(default)s; JSON has all)"
    )
    add_json(find)
    find.set_defaults(verb=_find)

    similar = verbs.add_parser(
        "similar", help="show the training texts that say the same words as an example (BM25)"
    )
    similar.add_argument("study", type=Path, help="folder of the study")
    which = similar.add_mutually_exclusive_group(required=True)
    which.add_argument("--test", metavar="ID", help="id of a test example, or its row as #17")
    which.add_argument("--train", metavar="ID", help="id of a training example, or its row as #17")
    similar.add_argument(
        "--k", type=int, default=COMPARED, help="texts to show (default: %(default)s)"
    )
    add_attribution(similar)
    add_json(similar)
    similar.set_defaults(verb=_similar)


def _find(options: argparse.Namespace) -> int:
    study = Study.open(options.study)
    split: Split = options.split
    rows = find_texts(study, split, options.words, _length(options.length))
    shown = rows if options.json else rows[: max(0, options.k)]
    named = read_names_of(study, split, shown)
    texts = read_texts_of(study, split, TEXT, shown)
    lengths = text_lengths(study, split)[shown].tolist()
    found = [
        {
            "row": int(row),
            "id": str(one["id"]),
            "label": str(one["label"]),
            "words": length,
            "text": text,
        }
        for row, one, length, text in zip(shown, named, lengths, texts, strict=True)
    ]
    if options.json:
        print_json(found)
        return 0
    listed = table("row", "id", "label", "words", "text")
    for one in found:
        cells = (f"{one['row']:,}", one["id"], one["label"], f"{one['words']:,}")
        listed.add_row(*map(one_line, cells), one_line(one["text"] or "", most=WIDE))
    out = console()
    which = "test" if split == "test" else "training"
    out.print(f"{counted(len(rows), f'{which} text')} of {study.dataset.rows(split):,}.")
    if found:
        out.print(listed)
    return 0


def _length(text: str) -> tuple[int | None, int | None]:
    ends = text.split("..")
    if len(ends) != 2 or not all(end == "" or (end.isascii() and end.isdigit()) for end in ends):
        raise DataloupeError(f"--length takes two numbers of words, as in 5..40, not {text!r}.")
    fewest, most = (int(end) if end else None for end in ends)
    if fewest is not None and most is not None and fewest > most:
        raise DataloupeError(f"--length {text} has no texts: its first number is the larger one.")
    return fewest, most


def _similar(options: argparse.Namespace) -> int:
    study = Study.open(options.study)
    split: Split = "test" if options.test is not None else "train"
    example = options.test if split == "test" else options.train
    found = similar_texts(study, example, options.k, split)
    both = None
    algorithm = resolve_algorithm(study, options.algorithm)
    if split == "test" and has_scores(study, algorithm):
        method = resolve_method(study, algorithm, options.method)
        both = in_both(study, example, options.k, algorithm, method)
    if options.json:
        content: dict[str, Any] = {"similar": [one.to_dict() for one in found]}
        if both is not None:
            content |= {"supporters": both.supporters, "supporters_among_them": both.both}
        print_json(content)
        return 0
    shown = console()
    if both is not None:
        shown.print(
            f"Of the {counted(both.supporters, 'strongest supporter')}, {len(both.both):,} "
            f"{'is' if len(both.both) == 1 else 'are'} among the {both.similar:,} most similar in "
            "words (marked *)."
        )
    listed = table("", "id", "label", "BM25", "words of both", "text")
    marked = set() if both is None else set(both.both)
    for rank, one in enumerate(found, 1):
        star = "*" if one.row in marked else ""
        words = one_line(" ".join(one.shared), most=60)
        text = one_line(one.text, most=WIDE)
        listed.add_row(
            f"{rank}{star}", one_line(one.id), one.label, BM25.text(one.score), words, text
        )
    shown.print(listed if found else "No training text has a word of this text.")
    return 0
