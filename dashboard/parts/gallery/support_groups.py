"""Which groups of training examples support a prediction: shares of the whole, not of the top."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

import numpy as np
import streamlit as st

from dashboard.names import plain, short
from engine.store.quantities import SHARE
from engine.study.group_sums import GroupSums

SHOWN = 5
"""Groups in the list; the others are summed."""
KEY = "support_by"


def support_groups(found: Mapping[str, GroupSums], kind: str) -> None:
    """A sentence about the group with most support, and the shares of the largest groups.

    Args:
        found: By column; nothing is shown if there is none.
        kind: `picture` or `text`.
    """
    shown = {name: sums for name, sums in found.items() if sums.support.any()}
    if not shown:
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        st.html('<h2 class="dl-heading">Where the support comes from</h2>', width="content")
        columns = list(shown)
        column = columns[0]
        if len(columns) > 1:
            column = st.selectbox(
                "Grouped by",
                columns,
                format_func=plain,
                key=KEY,
                label_visibility="collapsed",
                width=180,
            )
    sums = shown[column]
    first, most = short(sums.names[0]), SHARE.text(sums.support[0])
    words = (
        f"{most} of the support comes from <bdi>{escape(first)}</bdi>, "
        f"{SHARE.text(sums.examples[0])} of the training {kind}s."
    )
    st.html(f'<p class="dl-aside">{words}</p>{_bars(sums, column, kind)}')


def _bars(sums: GroupSums, column: str, kind: str) -> str:
    parts = np.stack([sums.support, sums.oppose, sums.examples], axis=1)
    names, shown = [short(name) for name in sums.names[:SHOWN]], parts[:SHOWN]
    largest = float(shown.max())
    if len(parts) > SHOWN:
        names.append("others")
        shown = np.vstack([shown, parts[SHOWN:].sum(axis=0)])
    rows = "".join(
        _row(name, shares, largest) for name, shares in zip(names, shown.tolist(), strict=True)
    )
    label = escape(f"Shares of the support, by {column}", quote=True)
    return (
        f'<table class="dl-shares" aria-label="{label}"><thead><tr><th scope="col">'
        f"{escape(short(column))}</th>"
        '<th scope="col">of the support</th><th scope="col">of the opposition</th>'
        f'<th scope="col">of the training {kind}s</th></tr></thead><tbody>{rows}</tbody></table>'
    )


def _row(name: str, shares: list[float], largest: float) -> str:
    cells = "".join(
        f'<td data-sign="{sign}"><span>{SHARE.text(share)}</span>'
        f'<i style="--size:{min(1.0, share / largest):.3f}"></i></td>'
        for sign, share in zip(("support", "oppose", "all"), shares, strict=True)
    )
    return f'<tr><th scope="row"><bdi>{escape(name)}</bdi></th>{cells}</tr>'
