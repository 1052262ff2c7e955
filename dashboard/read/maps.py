"""Maps as the page shows them: positions, and the rows within a lasso. All cached."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import streamlit as st

from engine import store
from engine.store import layout
from engine.store.cache import Stamps, stamps_of
from engine.store.layout import SPLITS, MapKind, Split
from engine.study.live_and_maps import has_map, read_map
from engine.study.neighbours import read_embeddings
from engine.study.reader import StudyReader

Kind = MapKind | Literal["embedding"]
EMBEDDING: Literal["embedding"] = "embedding"
MOST_CORNERS = 48
"""Corners of a lasso in the URL."""
_MOST_NUMBERS = 20_000_000
"""Embeddings with more numbers than this get no map here."""


def kinds_of(study: StudyReader, algorithm: str, method: str) -> list[Kind]:
    """The maps there are, the default first; empty before the built ones are complete."""
    built: list[Kind] = ["umap", "pca"]
    if not all(has_map(study, algorithm, method, one) for one in ("umap", "pca")):
        return []
    files = [layout.outputs_file(study.root, algorithm, 0, split) for split in SPLITS]
    if all(file.exists() for file in files):
        parts = [store.read_tensors(file).get("embeddings") for file in files]
        sizes = [part.size for part in parts if part is not None]
        if len(sizes) == len(parts) and sum(sizes) <= _MOST_NUMBERS:
            built.append(EMBEDDING)
    return built


def positions(study: StudyReader, kind: Kind, algorithm: str, method: str) -> dict[str, np.ndarray]:
    """Position of every example in the plane: `train`, `test` float32 `[n, 2]`."""
    if kind != EMBEDDING:
        return read_map(study, kind, algorithm, method)
    files = [layout.outputs_file(study.root, algorithm, 0, split) for split in SPLITS]
    return _embedding_map(algorithm, stamps_of(files), study)


@st.cache_resource(max_entries=4, show_spinner="Placing the embeddings…")
def _embedding_map(algorithm: str, stamps: Stamps, _study: StudyReader) -> dict[str, np.ndarray]:
    """The first two principal components of the first model's embeddings, of length 1."""
    from engine.attribution.search.maps import pca

    parts = [read_embeddings(_study, split, 1, algorithm) for split in SPLITS]
    place = pca(np.concatenate([part.rows(range(part.shape[0])) for part in parts]))
    first = parts[0].shape[0]
    return {SPLITS[0]: place[:first], SPLITS[1]: place[first:]}


# --- a lasso in the URL --------------------------------------------------------------------------


def lasso_text(kind: str, corners: Sequence[tuple[float, float]]) -> str:
    """A lasso on a map as a URL parameter: `umap:0.5,1.25;2,3;…`."""
    some = np.linspace(0, len(corners) - 1, min(len(corners), MOST_CORNERS)).astype(int)
    return f"{kind}:" + ";".join(f"{corners[at][0]:.5g},{corners[at][1]:.5g}" for at in some)


def lasso_rows(
    study: StudyReader, text: str, algorithm: str, method: str
) -> dict[Split, list[int]] | None:
    """All rows within a lasso, drawn or not, ascending; None if the text is no lasso here."""
    kind, _, rest = text.partition(":")
    known = {str(one): one for one in kinds_of(study, algorithm, method)}
    try:
        corners = [tuple(float(part) for part in corner.split(",")) for corner in rest.split(";")]
    except ValueError:
        return None
    if kind not in known or not 3 <= len(corners) <= MOST_CORNERS:
        return None
    if any(len(corner) != 2 or not np.isfinite(corner).all() for corner in corners):
        return None
    place = positions(study, known[kind], algorithm, method)
    return {
        split: np.flatnonzero(within(np.array(corners), place[split])).tolist() for split in SPLITS
    }


def within(corners: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Which points `[n, 2]` are inside the polygon `[c, 2]`: bool `[n]`, by the even-odd rule."""
    x, y = np.asarray(points[:, 0], np.float64), np.asarray(points[:, 1], np.float64)
    inside = np.zeros(len(points), bool)
    for (x1, y1), (x2, y2) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        crosses = (y1 > y) != (y2 > y)
        if y1 != y2:
            inside ^= crosses & (x < x1 + (y - y1) * (x2 - x1) / (y2 - y1))
    return inside
