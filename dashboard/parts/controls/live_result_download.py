"""The answer to a live query, to take away; nothing of it is kept here."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import streamlit as st

from engine.applications.live import Answer
from engine.study.reader import StudyReader


def result_export(study: StudyReader, algorithm: str, answer: Answer, k: int) -> None:
    """A button that opens the way out of a live query: the only trace that it leaves."""
    with st.popover("Export", icon=":material/download:", width="content"):
        st.download_button(
            "JSON",
            lambda: result_as_json(study, algorithm, answer, k),
            file_name="live-query.json",
            mime="application/json",
            on_click="ignore",
            key="json",
        )
        st.caption("The answer with what was given, re-encoded. Nothing is kept here.")


def result_as_json(study: StudyReader, algorithm: str, answer: Answer, k: int) -> str:
    """What the page shows of a live query, its first `k` of each order, and what it is about."""
    classes, train = study.dataset.classes, study.table("train")

    def listed(rows: np.ndarray, values: np.ndarray, value: str) -> list[dict[str, Any]]:
        chosen = train.iloc[rows[:k]]
        return [
            {"row": int(row), "id": str(id_), "label": str(label), value: float(number)}
            for row, id_, label, number in zip(
                rows[:k], chosen["id"], chosen["label"], values[:k], strict=True
            )
        ]

    picture = None
    if answer.thumbnail is not None:
        picture = "data:image/png;base64," + base64.b64encode(answer.thumbnail).decode()
    content = {
        "data_fingerprint": study.dataset.fingerprint,
        "study": study.spec.name,
        "algorithm": algorithm,
        "given": answer.text if picture is None else picture,
        "notes": answer.notes,
        "probabilities": dict(zip(classes, answer.probabilities.tolist(), strict=True)),
        "predicted": classes[answer.predicted],
        "explained": classes[answer.label],
        "margin": answer.margin,
        "predicting_checkpoints": answer.predicting,
        "scoring_checkpoints": answer.scoring,
        "supporting": listed(answer.support, answer.support_scores, "score"),
        "opposing": listed(answer.oppose, answer.oppose_scores, "score"),
        "similar": listed(answer.similar, answer.similarities, "similarity"),
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"
