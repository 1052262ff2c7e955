"""Download the result of a live query; nothing is stored on the server."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import streamlit as st

from engine.applications.live import Completed, QueryResult
from engine.store.layout import TRAK
from engine.study.examples import FILE, read_texts_of
from engine.study.reader import StudyReader


def result_export(study: StudyReader, algorithm: str, result: QueryResult, k: int) -> None:
    """Show a button that opens the download of a live query's result, its only record."""
    with st.popover("Export", icon=":material/download:", width="content"):
        st.download_button(
            "JSON",
            lambda: result_as_json(study, algorithm, result, k),
            file_name="live-query.json",
            mime="application/json",
            on_click="ignore",
            key="json",
        )
        st.caption("The result and the re-encoded input. Nothing is stored on the server.")


def result_as_json(study: StudyReader, algorithm: str, result: QueryResult, k: int) -> str:
    """JSON of a live query: its input, its outputs, and the first `k` of each ranking."""
    classes, train = study.dataset.classes, study.table("train")

    def listed(rows: np.ndarray, values: np.ndarray, value: str) -> list[dict[str, Any]]:
        chosen = train.iloc[rows[:k]]
        files = read_texts_of(study, "train", FILE, rows[:k])
        return [
            {"row": int(row), "id": str(id_), "file": file, "label": str(label), value: float(one)}
            for row, id_, file, label, one in zip(
                rows[:k], chosen["id"], files, chosen["label"], values[:k], strict=True
            )
        ]

    probabilities = None
    if result.probabilities is not None:
        probabilities = dict(zip(classes, result.probabilities.tolist(), strict=True))
    picture = None
    if result.thumbnail is not None:
        picture = "data:image/png;base64," + base64.b64encode(result.thumbnail).decode()
    content = {
        "data_fingerprint": study.dataset.fingerprint,
        "study": study.spec.name,
        "algorithm": algorithm,
        "picture": picture,
        "text": result.text,
        "completed": None if result.completed is None else _completed(study, result.completed),
        "notes": result.notes,
        "probabilities": probabilities,
        "predicted": result.predicted,
        **result.measures,
        "confidence": result.confidence,
        "explained": result.output.name,
        "explained_title": result.output.title,
        "output": result.value,
        "predicting_checkpoints": result.predicting,
        "scoring_checkpoints": result.scoring,
        "method": TRAK,
        "influence_unit": None,  # scores of live queries are not calibrated
        "supporting": listed(result.support, result.support_scores, "score"),
        "opposing": listed(result.oppose, result.oppose_scores, "score"),
        "similar": listed(result.similar, result.similarities, "similarity"),
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _completed(study: StudyReader, completed: Completed) -> dict[str, Any]:
    """The part that was missing, and the test examples that it was found in."""
    ids = study.table("test")["id"]
    return {
        "part": completed.part,
        "by": str(ids.iloc[completed.by]),
        "candidates": completed.candidates,
        "found": [
            {"row": int(row), "id": str(ids.iloc[row]), "similarity": float(fit)}
            for row, fit in zip(completed.rows, completed.fits, strict=True)
        ],
    }
