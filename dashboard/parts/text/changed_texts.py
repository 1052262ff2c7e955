"""A transformation of texts: its options, and some test texts before and after it."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import SequenceMatcher
from html import escape
from typing import Any

import streamlit as st

from dashboard.names import short
from dashboard.parts.text.shown_text import Span, in_order, parts
from engine.applications.modeldiff.text_transformations import (
    LONGEST_OPTION,
    TEXT_TRANSFORMATIONS,
    apply_to_texts,
)
from engine.data.words import word_spans
from engine.study.examples import TEXT, read_texts_of
from engine.study.reader import StudyReader

SHOWN = 4
COUNTED = 1_000
"""Test texts among which those that change are counted."""
LONGEST = 400
"""Most characters of a text that are shown before and after."""
WORDS = {
    "word": ("Word, or words in a row", "not"),
    "by": ("Replace by (empty: leave it out)", "never"),
    "suffix": ("Suffix", "as one would expect"),
    "prefix": ("Words in front", "honestly"),
}
"""Option → title and placeholder of its field."""


def text_options(name: str) -> dict[str, Any]:
    """Show a field for each option; those that differ from the default."""
    found = {}
    for option, default in TEXT_TRANSFORMATIONS[name].options.items():
        title, example = WORDS[option]
        value = st.text_input(
            title,
            default,
            placeholder=example,
            key=f"option_{name}_{option}",
            max_chars=LONGEST_OPTION,
        )
        if value != default:
            found[option] = value
    return found


def changed_texts(
    study: StudyReader, name: str, intensity: float, options: Mapping[str, Any], rows: list[int]
) -> str:
    """HTML of some test texts, each with its transformed version below, changes marked.

    Args:
        rows: Those that are preferred, if they change.

    Raises as `apply_to_texts`.
    """
    among = [*rows, *(row for row in range(min(COUNTED, study.dataset.n_test)) if row not in rows)]
    before = [text or "" for text in read_texts_of(study, "test", TEXT, among)]
    after = apply_to_texts(name, before, intensity, options)
    changed = [n for n in range(len(among)) if before[n] != after[n]]
    labels = study.table("test")["label"]
    items = []
    for n in (changed or list(range(len(among))))[:SHOWN]:
        label = escape(in_order(short(labels.iloc[among[n]])))
        shown = _text(before[n], changes(after[n], before[n]), "original")
        if before[n] != after[n]:
            shown += _text(after[n], changes(before[n], after[n]), "transformed")
        items.append(f"<li><small><bdi>{label}</bdi></small>{shown}</li>")
    of = f"{len(among):,} test texts" if len(among) > 1 else "1 test text"
    count = f'<p class="dl-aside">Changes {len(changed):,} of {of}.</p>' if intensity else ""
    return f'{count}<ul class="dl-changed">{"".join(items)}</ul>'


def changes(before: str, after: str) -> list[Span]:
    """Parts of the second text that are not in the first, by words."""
    one, other = before[:LONGEST], after[:LONGEST]
    spans = word_spans(other)
    own = [one[slice(*span)] for span in word_spans(one)]
    theirs = [other[slice(*span)] for span in spans]
    found = []
    for kind, _, _, first, last in SequenceMatcher(None, own, theirs, False).get_opcodes():
        if kind in ("replace", "insert"):
            found.append((spans[first][0], spans[last - 1][1]))
    return found


def _text(text: str, marks: list[Span], kind: str) -> str:
    words = "".join(
        f"<mark>{escape(part)}</mark>" if marked else escape(part)
        for part, marked in parts(text, marks, LONGEST)
    )
    more = "…" if len(text) > LONGEST else ""
    return f'<p dir="auto" class="dl-text" data-kind="{kind}">{words}{more}</p>'
