"""The Live page in every state, in-process; explanations come from a real worker."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

import dashboard.read.live_queries
from dashboard.__main__ import server_config
from dashboard.read.live_queries import Workers
from dashboard.read.studies import STUDY_VARIABLE
from engine import Study, store
from engine.applications.live import Query, run_query
from engine.store import layout
from engine.store.errors import DataloupeError
from engine.study.rankings import find_influences
from tests.applications.test_live import photo, pixels_of, png
from tests.builders.page_contents import cards, group_words, words
from tests.builders.synthetic_study import write_study
from tests.conftest import APP
from tests.running.test_kept_worker import hang


@pytest.fixture
def visit(monkeypatch: pytest.MonkeyPatch, workers: Workers) -> Any:
    st.cache_resource.clear()
    monkeypatch.setattr(dashboard.read.live_queries, "_workers", lambda: workers)

    def open_page(study: Study, **parameters: str) -> AppTest:
        monkeypatch.setenv(STUDY_VARIABLE, str(study.root))
        app = AppTest.from_file(str(APP), default_timeout=180)
        for name, value in parameters.items():
            app.query_params[name] = value
        app.switch_page("views/live.py").run()
        assert not app.exception
        return app

    return open_page


def give(app: AppTest, content: bytes, name: str = "mine.png") -> AppTest:
    app.file_uploader(key="own_picture").upload(name, content, "image/png").run()
    assert not app.exception
    return app


def test_the_page_asks_for_a_picture_and_stores_nothing(visit: Any, small_study: Study) -> None:
    app = visit(small_study)
    assert "Which picture should be explained?" in words(app)
    assert "Nothing is stored" in words(app)
    assert "png" in " ".join(app.file_uploader(key="own_picture").allowed_type)


def test_a_picture_is_explained(visit: Any, small_study: Study) -> None:
    content = png(pixels_of(small_study, 5))
    app = give(visit(small_study, k="7"), content)
    answer = run_query(Query(small_study.root, "mlp", {"picture": content}))
    for side, rows in enumerate((answer.support, answer.oppose)):
        assert [card["row"] for card in cards(app, side)] == list(rows[:7])
        assert cards(app, side)[0]["href"].startswith("training?")
        assert "test=" not in cards(app, side)[0]["href"]
    assert f"Pulled the model toward “{answer.predicted}”" in group_words(app)[0]
    assert f"Pulled the model away from “{answer.predicted}”" in group_words(app)[1]
    shown = words(app)
    assert f"{answer.probabilities.max():.1%}" in shown
    assert "data:image/png;base64," in shown
    assert "by 2 checkpoints" in shown
    popovers = [part.proto.popover.label for part in app.get("popover")]
    assert popovers[:2] == ["Jobs", "Explain…"]
    assert popovers[2].startswith("TRAK, live · LDS of the margin")
    assert popovers[2].endswith("uncalibrated")
    assert "Computed live from 2 of 2 checkpoints, not calibrated" in shown


def test_the_same_picture_is_explained_anew_by_other_models(
    visit: Any, own_study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, real = [], dashboard.read.live_queries.ask

    def ask(*query: Any) -> Any:
        calls.append(query)
        return real(*query)

    monkeypatch.setattr(dashboard.read.live_queries, "ask", ask)
    app = give(visit(own_study), png(pixels_of(own_study, 5)))
    app.run()
    assert len(calls) == 1
    os.utime(layout.checkpoint_file(own_study.root, "mlp", 0))
    app.run()
    assert len(calls) == 2


def test_a_different_class_can_be_explained(visit: Any, small_study: Study) -> None:
    content = png(pixels_of(small_study, 5))
    app = give(visit(small_study), content)
    classes = small_study.dataset.classes
    predicted = str(run_query(Query(small_study.root, "mlp", {"picture": content})).predicted)
    other = classes[(classes.index(predicted) + 3) % 10]
    assert app.radio(key="output_choice").options[0] == f"The predicted class: {predicted}"
    app.radio(key="output_choice").set_value("class:{}").run()
    app.selectbox(key="output_class_0").select(other).run()
    answer = run_query(Query(small_study.root, "mlp", {"picture": content}, f"class:{other}"))
    assert app.query_params["output"] == answer.output.name
    assert [card["row"] for card in cards(app)] == list(answer.support[:12])
    assert f"Why not “{other}”?" in words(app)
    assert f"toward “{other}”" in group_words(app)[0]
    assert f"are labeled “{predicted}”" in group_words(app)[1]
    app.radio(key="output_choice").set_value("{}>{}").run()
    app.selectbox(key="output_class_1").select(other).run()
    answer = run_query(Query(small_study.root, "mlp", {"picture": content}, f"{predicted}>{other}"))
    assert [card["row"] for card in cards(app)] == list(answer.support[:12])
    assert f"Why “{predicted}” rather than “{other}”?" in words(app)


@pytest.mark.parametrize("show", ["similar", "both"])
def test_similar_pictures_are_shown(visit: Any, small_study: Study, show: str) -> None:
    app = give(visit(small_study, show=show), png(pixels_of(small_study, 5)))
    rows, _ = small_study.neighbours("test", 5, 12)
    assert [card["row"] for card in cards(app, 2 * (show == "both"))] == list(rows)
    assert len(group_words(app)) == (3 if show == "both" else 1)
    assert ("influential pictures shown are not among" in words(app)) is (show == "both")


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"no picture at all", "The picture is damaged or no picture of a known format"),
        (png(photo(300, 300))[:20_000], "The picture is damaged"),
        (b"", "The file is empty"),
    ],
)
def test_unusable_files_get_one_clear_message(
    visit: Any, small_study: Study, content: bytes, line: str
) -> None:
    app = give(visit(small_study), content)
    (panel,) = [part.value for part in app.html if 'class="dl-notice"' in part.value]
    assert 'data-kind="error"' in panel
    assert "This picture cannot be explained" in panel
    assert line in panel
    give(app, png(pixels_of(small_study, 5)))
    assert len(cards(app)) == 12


def test_resizing_of_the_picture_is_reported(visit: Any, small_study: Study) -> None:
    app = give(visit(small_study), png(photo(640, 480)), "photo.png")
    assert "640 × 480 pixels and was resized to the 28 × 28" in words(app)


KEPT_FOR_A_QUERY = ("live_given", "live_key", "live_answer")


def test_a_removed_picture_leaves_nothing(visit: Any, small_study: Study) -> None:
    app = give(visit(small_study), png(pixels_of(small_study, 5)))
    assert "live_answer" in app.session_state
    app.file_uploader(key="own_picture").set_value(None).run()
    assert not [name for name in KEPT_FOR_A_QUERY if name in app.session_state]
    assert "Which picture should be explained?" in words(app)


def test_a_picture_survives_a_visit_to_a_training_example(visit: Any, small_study: Study) -> None:
    app = give(visit(small_study), png(pixels_of(small_study, 5)))
    shown = [card["row"] for card in cards(app)]
    app.query_params["train"] = "train-3"
    app.switch_page("views/training.py").run()
    app.switch_page("views/live.py").run()
    assert [card["row"] for card in cards(app)] == shown
    app.button(key="forget").click().run()
    assert "Which picture should be explained?" in words(app)
    assert not [name for name in KEPT_FOR_A_QUERY if name in app.session_state]


def test_the_explanation_can_be_exported(visit: Any, small_study: Study) -> None:
    from dashboard.parts.controls.live_result_download import result_as_json

    content = png(pixels_of(small_study, 5))
    app = give(visit(small_study), content)
    assert [button.proto.label for button in app.get("download_button")] == ["JSON"]
    answer = run_query(Query(small_study.root, "mlp", {"picture": content}))
    exported = json.loads(result_as_json(small_study, "mlp", answer, 4))
    assert [one["row"] for one in exported["supporting"]] == list(answer.support[:4])
    assert [one["row"] for one in exported["similar"]] == list(answer.similar[:4])
    assert exported["picture"].startswith("data:image/png;base64,")
    assert sum(exported["probabilities"].values()) == pytest.approx(1)


def test_a_hanging_worker_is_reported_and_replaced(
    visit: Any, small_study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = visit(small_study)
    monkeypatch.setattr(dashboard.read.live_queries, "explain", hang)
    monkeypatch.setattr(dashboard.read.live_queries, "ANSWER_SECONDS", 0.3)
    give(app, png(pixels_of(small_study, 6)))
    assert "took longer than 0 seconds and was stopped" in words(app)
    monkeypatch.undo()


def test_a_text_is_explained(visit: Any, text_study: Study) -> None:
    app = visit(text_study)
    assert "Which text should be explained?" in words(app)
    app.text_area(key="own_text").input("my sister praised the zeppelin").run()
    answer = run_query(Query(text_study.root, "words", {"text": "my sister praised the zeppelin"}))
    assert [card["row"] for card in cards(app)] == list(answer.support[:12])
    assert "“zeppelin”" in words(app)
    assert "my sister praised the zeppelin" in words(app)
    app.text_area(key="own_text").input("…").run()
    assert "The text has no words: write some." in words(app)


def test_a_study_built_before_live_queries_waits_for_them(visit: Any, tmp_path: Path) -> None:
    assert "as soon as they are prepared" in words(visit(write_study(tmp_path / "study")))
    empty = write_study(tmp_path / "empty", stage="spec")
    assert "as soon as they are prepared" in words(visit(empty))


def test_a_study_without_live_queries_shows_the_reason(
    visit: Any, small_study: Study, tmp_path: Path
) -> None:
    study = Study.open(shutil.copytree(small_study.root, tmp_path / "copy"))
    found = store.read_json(layout.live_file(study.root, "mlp")) | {
        "checkpoints": 0,
        "reason": "it is <b>huge",
    }
    store.write_json(layout.live_file(study.root, "mlp"), found, "")
    shown = words(visit(study))
    assert "has no live queries" in shown
    assert "it is &lt;b&gt;huge" in shown


def test_a_model_without_embeddings_has_no_similar_examples(
    visit: Any, small_study: Study, tmp_path: Path
) -> None:
    study = Study.open(shutil.copytree(small_study.root, tmp_path / "copy"))
    about = {"checkpoints": 0, "reason": "the architecture has no method `embed`"}
    store.write_json(layout.similarity_file(study.root, "mlp"), about, "")
    content = png(pixels_of(study, 5))
    assert len(cards(give(visit(study), content))) == 12
    shown = words(give(visit(study, show="both"), content))
    assert "No similar pictures without embeddings" in shown


def test_the_upload_limits_of_server_and_page_are_equal() -> None:
    assert (
        server_config("127.0.0.1", 1)["server.maxUploadSize"]
        == dashboard.read.live_queries.MEGABYTES
        == 20
    )


def test_the_page_does_not_import_torch(small_study: Study, tmp_path: Path) -> None:
    picture = tmp_path / "mine.png"
    picture.write_bytes(png(pixels_of(small_study, 5)))
    script = f"""
import os, sys
os.environ['{STUDY_VARIABLE}'] = {str(small_study.root)!r}
from pathlib import Path
from streamlit.testing.v1 import AppTest
app = AppTest.from_file({str(APP)!r}, default_timeout=180)
app.switch_page("views/live.py").run()
app.file_uploader(key="own_picture").upload("a.png", Path({str(picture)!r}).read_bytes(), "").run()
assert not app.exception and any("dl-own" in part.value for part in app.html)
assert "torch" not in sys.modules, "torch was imported"
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_live_scores_equal_the_scores_of_the_study(visit: Any, small_study: Study) -> None:
    """With all checkpoints live, a test picture gets the same supporters as on Explain."""
    row = int(np.flatnonzero(small_study.predictions("test")["correct"])[0])
    app = give(visit(small_study), png(pixels_of(small_study, row)))
    assert [card["row"] for card in cards(app)] == list(find_influences(small_study, row, 12)[0])


def test_a_slow_picture_delays_only_its_sender(workers: Workers, small_study: Study) -> None:
    content = png(pixels_of(small_study, 5))
    with workers.reading.turn("slow"):  # as if a picture of theirs took forever
        found = workers.ask(Query(small_study.root, "mlp", {"picture": content}), "other")
    assert list(found.support) == list(
        run_query(Query(small_study.root, "mlp", {"picture": content})).support
    )


def test_a_picture_that_ends_its_reader_costs_the_next_one_nothing(
    workers: Workers, small_study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    query = Query(small_study.root, "mlp", {"picture": png(pixels_of(small_study, 5))})
    monkeypatch.setattr(dashboard.read.live_queries, "read_example", hang)
    monkeypatch.setattr(dashboard.read.live_queries, "READING_SECONDS", 0.3)
    with pytest.raises(DataloupeError, match="took longer"):
        workers.ask(query, "slow")
    assert all(reader.pid for reader in workers.readers[:1]), "it is not started again"
    monkeypatch.undo()
    assert len(workers.ask(query, "other").support)
