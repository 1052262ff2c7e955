"""The gallery: pictures from sprite sheets, texts, or both, in a grid for mouse and arrow keys.

A click or Enter opens a card. Selectable cards are selected with the box in the corner, Space,
Shift with a click or an arrow key, or Ctrl+A; Escape clears the selection.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import streamlit as st

from dashboard.parts.text.shown_text import EXCERPT, Span, parts
from dashboard.read.picture_urls import gathered_url, pictures_url, sprite_url
from engine.data import SPRITES_PER_SHEET
from engine.data.thumbnails import COLUMNS
from engine.store.layout import Split
from engine.store.text import visible
from engine.study.capabilities import has
from engine.study.examples import size_of_pictures
from engine.study.reader import StudyReader

CAPTIONED = 80
"""Thumbnails smaller than this, in pixels, have no caption."""
BESIDE_TEXT = 80
"""The most that a picture beside its text has."""
LARGE_SIDE = 224
"""Side in pixels of the enlarged picture next to the card under the mouse."""
LARGEST_SIDE = 448
"""The most, for a picture that is larger than its thumbnail."""
_HERE = Path(__file__).parent
_FILES = _HERE / "gallery", _HERE.parent / "text" / "text_card"


Sign = Literal["support", "oppose", "similar", "a", "b"]


@dataclass(frozen=True)
class Card:
    """One example in a gallery.

    Attributes:
        row: Row in its split.
        name: First line: its label.
        note: Second line.
        hint: The whole card as one sentence, for the tooltip and for screen readers.
        aside: At the end of the second line, never truncated.
        wrong: Whether the note shows a wrong prediction.
        href: Link target; None for no link.
        title: Id of a text example, above its label.
        text: The text of a text example.
        marks: Parts of the text to mark.
        file: Name of a picture's file, without its folder.
        score: Of an influence, with its sign.
        bar: Length of the score's bar, 0 to 1.
        tag: Short framed text, such as the card's rank in a different ranking.
        mark: Highlights the tag: the example is in `both` rankings, or in this one `alone`.
    """

    row: int
    name: str
    note: str
    hint: str
    aside: str = ""
    wrong: bool = False
    href: str | None = None
    title: str | None = None
    text: str | None = None
    marks: Sequence[Span] = ()
    file: str | None = None
    score: str | None = None
    bar: float | None = None
    tag: str | None = None
    mark: Literal["both", "alone"] | None = None


@dataclass(frozen=True)
class Group:
    """Cards under one heading.

    Attributes:
        name: For screen readers.
        title: Heading; None for no heading.
        words: Caption under the heading.
        sign: Colors and marks the group as supporting, opposing or similar, or as of A or of B.
        empty: Text shown if there are no cards.
        makeup: (label, number of cards with it), drawn as one bar.
        shares: Each card's share of a total, in order; drawn cumulatively.
        whole: Name of that total.
    """

    name: str
    cards: Sequence[Card]
    title: str | None = None
    words: str = ""
    sign: Sign | None = None
    empty: str = "Nothing here."
    makeup: Sequence[tuple[str, int]] = ()
    shares: Sequence[float] = ()
    whole: str = ""


def thumbnail_side(cell: int, wanted: int) -> int:
    """Side of a thumbnail in CSS pixels: the largest multiple of `cell` up to `wanted`.

    Integer multiples stay sharp. The side is at least `cell`.
    """
    return cell * max(1, wanted // cell) if cell else wanted


def gallery(
    study: StudyReader,
    split: Split,
    groups: Sequence[Group],
    side: int,
    key: str,
    on_open: Callable[[int], None] | None = None,
    selected: Sequence[int] = (),
    most: int = 0,
    on_select: Callable[[list[int]], None] | None = None,
    peeks: bool = False,
) -> None:
    """Show groups of cards side by side.

    Args:
        on_open: Called with the row of a clicked card.
        selected: Selected rows, on this page or not.
        most: The most rows that can be selected.
        on_select: Called with all selected rows when they change; None disables selection.
        peeks: Whether the focused card is enlarged, too, and a tap enlarges before it opens.
    """
    text, pictures = has(study, "texts"), has(study, "pictures")
    compact = side < CAPTIONED and not text
    if text:
        side = min(side, BESIDE_TEXT)
    natural = size_of_pictures(study)

    def item(card: Card) -> dict[str, Any]:
        if compact:
            return {name: getattr(card, name) for name in ("row", "hint", "wrong", "href")}
        found = {name: value for name, value in vars(card).items() if _says_something(value)}
        return found | (_excerpt(card) if text else {})

    def opened() -> None:
        row = st.session_state[key].opened
        if on_open is not None and isinstance(row, int | float):
            on_open(int(row))

    def chosen() -> None:
        change = st.session_state[key].selected
        if on_select is not None and change is not None:
            st.session_state[f"{key}_change"] = change["number"]
            on_select([int(row) for row in change["rows"]])

    _component()(
        key=key,
        data={
            "selectable": on_select is not None,
            "selected": list(selected),
            "most": most,
            # The browser may have made newer changes than this one.
            "change": st.session_state.get(f"{key}_change", 0),
            "side": thumbnail_side(study.dataset.cell, side),
            "narrow": thumbnail_side(study.dataset.cell, round(0.75 * side)),
            "large": thumbnail_side(study.dataset.cell, LARGE_SIDE),
            "natural": None if natural is None else _natural(study, split, *natural),
            "compact": compact,
            "peeks": peeks,
            "text": text,
            "sheets": sprite_url(study, split) if pictures else None,
            "perSheet": SPRITES_PER_SHEET,
            "columns": COLUMNS,
            "groups": [
                {
                    "name": group.name,
                    "title": group.title,
                    "words": group.words,
                    "sign": group.sign,
                    "empty": group.empty,
                    "makeup": group.makeup,
                    "shares": group.shares,
                    "whole": group.whole,
                    "sheets": _own_sheets(study, split, group) if pictures else None,
                    "items": [item(card) for card in group.cards],
                }
                for group in groups
            ],
        },
        on_opened_change=opened,
        on_selected_change=chosen,
    )


def _natural(study: StudyReader, split: Split, width: int, height: int) -> dict[str, Any]:
    """Where the browser gets pictures larger than thumbnails, and how large it shows them."""
    shrunk = min(1, LARGEST_SIDE / max(width, height))
    size = {"width": round(shrunk * width), "height": round(shrunk * height)}
    return {"url": pictures_url(study, split), **size}


def _says_something(value: object) -> bool:
    """Whether a value is neither None nor an empty text or sequence."""
    return value is not None and not (isinstance(value, str | Sequence) and not value)


def _excerpt(card: Card) -> dict[str, Any]:
    """The part of a card's text that the browser gets, and how much it lacks."""
    text = card.text or ""
    left = len(text) - EXCERPT
    found: dict[str, Any] = {"text": visible(text[:EXCERPT])}
    if card.marks:
        found["parts"] = parts(text, card.marks)
    if left > 0:
        found["rest"] = f"{left:,} more characters: open it to read on"
    return found


def _own_sheets(study: StudyReader, split: Split, group: Group) -> list[str] | None:
    """Sheets of only these cards, in order; None if the stored sheets are about as few."""
    rows = tuple(card.row for card in group.cards)
    sheets = [rows[at : at + SPRITES_PER_SHEET] for at in range(0, len(rows), SPRITES_PER_SHEET)]
    if len({row // SPRITES_PER_SHEET for row in rows}) <= len(sheets) + 1:
        return None
    return [gathered_url(study, split, sheet) for sheet in sheets]


def _component() -> Any:
    return st.components.v2.component(
        "dataloupe_gallery",
        html='<div class="gallery"></div>\n',
        css="\n".join(file.with_suffix(".css").read_text(encoding="utf-8") for file in _FILES),
        js="\n".join(file.with_suffix(".js").read_text(encoding="utf-8") for file in _FILES),
    )
