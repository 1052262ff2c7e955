"""The JSON twins of the pages: what they give and refuse, and that their document is true."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import pytest
from jsonschema import Draft202012Validator
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.testclient import TestClient

from dashboard.api.answer import CHUNK, JSON, NDJSON, Answer, Rows
from dashboard.api.openapi import openapi
from dashboard.api.server import api_routes
from dashboard.api.table import VIEWS
from dashboard.api.threads import Threads
from dashboard.api.views.map import Map, Point
from dashboard.server.guard import Guard
from dashboard.server.headers import security_headers
from dashboard.server.hosts import known_hosts
from engine import Study
from engine.study.decisions import decide
from engine.study.removal_sets import keep_set
from tests.builders.calibrated_study import give_units
from tests.builders.copies import copy_of
from tests.builders.synthetic_study import STAGES, write_study
from tests.dashboard.test_guard import LOGIN, signed

ASK = {
    "explain": "test=%237&k=3",
    "training": "train=%237&k=3",
    "what-if": "remove=%231,%232&k=3",
    "compare": "by_a=datamodel",
    "brittle": "at_most=100",
}
NAMES = [view.name for view in VIEWS]


def client_of(study: Study | Path, login: Any = None) -> TestClient:
    root = study if isinstance(study, Path) else study.root
    guard = Middleware(
        Guard,
        login=login,
        hosts=known_hosts("127.0.0.1", []),
        local=True,
        headers=security_headers(),
        files=lambda: None,
    )
    routes = Starlette(routes=api_routes(root), middleware=[guard])
    return TestClient(routes, "http://127.0.0.1", raise_server_exceptions=True)


def address(view: str, more: str = "") -> str:
    return f"/api/{view}?" + "&".join(part for part in (ASK.get(view, ""), more) if part)


def validator(name: str) -> Draft202012Validator:
    schemas = openapi()["components"]["schemas"]
    text = json.dumps({"$ref": f"#/$defs/{name}", "$defs": schemas})
    return Draft202012Validator(json.loads(text.replace("#/components/schemas/", "#/$defs/")))


@pytest.fixture(scope="module")
def studies(
    small_study: Study,
    text_study: Study,
    toy_study: Study,
    brightness_study: Study,
    colors_study: Study,
    audited: Study,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, TestClient]:
    folder = tmp_path_factory.mktemp("api")
    found: dict[str, Study] = {
        "pictures": give_units(copy_of(small_study, folder / "pictures")),
        "texts": text_study,
        "own task": toy_study,
        "numbers": brightness_study,
        "several classes": colors_study,
        "two algorithms": audited,
    }
    return {name: client_of(study) for name, study in found.items()}


LACKING = {
    "pictures": {"compare"},
    "texts": {"compare", "quality"},
    "own task": {"brittle", "compare", "labels", "unlearn"},
    "numbers": {"brittle", "compare", "labels", "unlearn"},
    "several classes": {"brittle", "compare", "labels", "unlearn"},
    "two algorithms": set(),
}
"""What a study cannot give; it says why."""


@pytest.mark.parametrize("view", NAMES)
@pytest.mark.parametrize("kind", LACKING)
def test_every_view_of_every_study_is_as_its_document_says(
    studies: dict[str, TestClient], kind: str, view: str
) -> None:
    client = studies[kind]
    answer = client.get(address(view))
    if view in LACKING[kind]:
        refused(answer, 404)
        return
    assert answer.status_code == 200, answer.text
    content = next(one for one in VIEWS if one.name == view).content
    validator(content.__name__).validate(answer.json())
    found = answer.json()
    assert found["data_fingerprint"]
    assert found["algorithm"]
    assert found["method"]
    assert found["trust"]["text"]
    assert found["trust"]["calibrated"] in (True, False)


def refused(answer: Any, status: int) -> str:
    """The one line of a refusal."""
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == ["error"]
    words: str = answer.json()["error"]
    validator("Error").validate(answer.json())
    assert words.strip()
    assert "\n" not in words
    assert "Traceback" not in words
    return words


REFUSED = {
    "a test example that is not there": ("explain?test=test-99999", 404, "Did you mean"),
    "a row that is not there": ("explain?test=%23300000", 404, "#0 to #"),
    "no test example": ("explain", 400, "Give `test`"),
    "an empty test example": ("explain?test=", 400, "Give `test`"),
    "a training example that is not there": ("training?train=nope", 404, "training example"),
    "a removal that is not there": ("what-if?remove=nope,%231", 404, "'nope'"),
    "a removal that is a file": ("what-if?remove=/etc/passwd", 404, "/etc/passwd"),
    "a removal of nothing": ("what-if?remove=,", 400, "empty"),
    "two removals": ("what-if?remove=%231&set=00", 400, "only one of `remove` and `set`"),
    "a removal of no supporters": (
        "what-if?together=%231&supporters=0",
        400,
        "supporters must be 1 to 500",
    ),
    "together for nobody": ("what-if?together=nobody", 404, "nobody"),
    "a set that is not there": ("what-if?set=0000000000000000", 404, "removal set"),
    "a path as a set": ("what-if?set=../../etc/passwd", 404, "removal set"),
    "a column that is no group": ("what-if?remove=%231&by=nope", 404, "grouped by"),
    "an algorithm that is not there": ("overview?algorithm=mpl", 404, "Did you mean 'mlp'"),
    "a method that is not there": ("explain?test=%231&method=tark", 404, "Did you mean 'trak'"),
    "an output that is not there": ("explain?test=%231&output=nope", 400, "nope"),
    "an output that is not stored": (
        "explain?test=%231&output=class:Bag",
        404,
        "`dataloupe explain",
    ),
    "k that is 0": ("explain?test=%231&k=0", 400, "k must be 1 to"),
    "k that is no number": ("explain?test=%231&k=ten", 400, "k must be 1 to"),
    "k that is huge": ("explain?test=%231&k=99999999999999", 400, "k must be 1 to"),
    "a page that is 0": ("test-set?page=0", 400, "page must be"),
    "a page after the last": ("test-set?page=2", 400, "page must be 1 to 1"),
    "a long page": ("training-set?per_page=961", 400, "per_page must be 1 to 960"),
    "a misspelled parameter": ("test-set?lable=Coat", 400, "Did you mean 'label'"),
    "a class that is not there": ("test-set?label=Cote", 400, "Cote"),
    "a result that there is not": ("test-set?result=maybe", 400, "maybe"),
    "a filter that pictures lack": ("test-set?text=calm", 400, "nothing to filter or sort by"),
    "an empty filter": ("test-set?id=", 400, "nothing to filter or sort by"),
    "an order that there is not": ("training-set?sort=best", 400, "cannot be sorted"),
    "an order of training examples": ("test-set?sort=suspicion", 400, "cannot be sorted"),
    "an order of test examples": ("training-set?sort=support", 400, "cannot be sorted"),
    "a decision that there is not": ("labels?decided=maybe", 404, "decided must be one of"),
    "a parameter given twice": ("explain?test=%231&test=%232", 400, "twice"),
    "an address of other data": ("overview?study=deadbeef", 400, "other data"),
    "a format that there is not": ("test-set?format=xml", 400, "json or ndjson"),
    "lines of one object": ("quality?format=ndjson", 400, "no lines"),
    "a map that there is not": ("map?kind=tsne", 404, "kind must be one of"),
    "a status that there is not": ("brittle?status=maybe", 400, "status"),
    "a method that a comparison lacks": ("compare?by_a=tark", 404, "Did you mean 'trak'"),
    "too many removed": ("brittle?at_most=1000", 400, "at_most must be"),
    "an algorithm of a comparison": ("compare?a=nope", 404, "no algorithm 'nope'"),
    "a view that there is not": ("explian", 404, "no such view"),
    "a view below a view": ("explain/17", 404, "no such view"),
    "a path out": ("..%2f..%2fetc/passwd", 404, "no such view"),
    "a picture that is not there": ("picture?split=train&row=300", 404, "rows are 0 to 299"),
    "a row that is no number": ("picture?row=-1", 404, "row must be"),
    "no example": ("picture", 400, "Give `id`"),
    "a split that there is not": ("picture?split=valid&row=1", 404, "split must be"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_is_said_in_one_line(studies: dict[str, TestClient], case: str) -> None:
    asked, status, words = REFUSED[case]
    assert words in refused(studies["pictures"].get(f"/api/{asked}"), status)


ALWAYS = {"provenance", "jobs"}
"""Views of a study of which nothing is built."""


@pytest.mark.parametrize("stage", STAGES[:-1])
def test_what_is_not_built_names_the_command_that_makes_it(stage: Any, tmp_path: Path) -> None:
    client = client_of(write_study(tmp_path / "study", stage=stage))
    there = {
        "spec": ALWAYS,
        "data": {*ALWAYS, "overview", "findings", "test-set", "training-set", "unlearn"},
        "predictions": {*ALWAYS, "overview", "findings", "test-set", "training-set", "unlearn"}
        | {"labels"},
    }[stage]
    for view in NAMES:
        answer = client.get(address(view))
        if view in there:
            assert answer.status_code == 200, answer.text
            assert answer.json()["trust"] is None
        else:
            assert "`dataloupe " in refused(answer, 404), view
    if stage == "spec":
        refused(client.get("/api/picture?row=1"), 404)


def test_a_folder_that_is_no_study_and_broken_files_are_one_line(
    complete_study: Study, tmp_path: Path
) -> None:
    assert "is not a folder" in refused(client_of(tmp_path / "no").get("/api/overview"), 400)
    broken = copy_of(complete_study, tmp_path / "broken")
    for path in broken.root.rglob("*.safetensors"):
        path.write_bytes(b"broken")
    for path in broken.root.rglob("*.webp"):
        path.unlink()
    client = client_of(broken)
    for view in ("explain", "training", "what-if", "map", "training-set"):
        assert "broken" in refused(client.get(address(view)), 404), view
    assert "dataloupe doctor" in refused(client.get("/api/picture?row=1"), 404)


# --- the parameters are those of the pages --------------------------------------------------------


def test_a_slice_is_that_of_the_page(studies: dict[str, TestClient]) -> None:
    client = studies["pictures"]
    wrong = client.get("/api/test-set?result=wrong&sort=-output&page=1&selected=1").json()
    assert wrong["slice"] == {"result": "wrong", "sort": "-output"}
    assert wrong["matching"] == len(wrong["examples"])
    assert not any(one["correct"] for one in wrong["examples"])
    outputs = [one["model_output"]["value"] for one in wrong["examples"]]
    assert outputs == sorted(outputs, reverse=True)
    parts = [client.get(f"/api/test-set?per_page=25&page={n}").json() for n in (1, 2, 3)]
    assert [len(part["examples"]) for part in parts] == [25, 25, 10]
    assert {part["pages"] for part in parts} == {3}
    everything = client.get("/api/test-set?page=all").json()
    assert everything["page"] is None
    assert everything["examples"] == [one for part in parts for one in part["examples"]]
    helpful = client.get("/api/training-set?sort=help&label=Coat&per_page=5").json()
    assert {one["label"] for one in helpful["examples"]} == {"Coat"}
    sums = [one["net_influence"]["value"] for one in helpful["examples"]]
    assert sums == sorted(sums, reverse=True)
    suspects = client.get("/api/labels?per_page=5").json()
    listed = client.get("/api/training-set?sort=suspicion&per_page=5").json()
    assert suspects["labels"] == listed["examples"]


def test_findings_lead_to_twins_of_pages(studies: dict[str, TestClient]) -> None:
    client = studies["pictures"]
    found = {one["about"]: one for one in client.get("/api/findings").json()["findings"]}
    suspect = found["suspect-labels"]
    assert suspect["count"] == client.get("/api/labels").json()["flagged"]
    for one in found.values():
        assert one["evidence"]
        if one["page"] is not None and one["count"]:
            page, _, query = one["page"].partition("?")
            assert client.get(f"/api/{page}?{query}").status_code == 200, one


def test_decisions_about_labels_are_listed(own_study: Study) -> None:
    decide(own_study, 3, "remove")
    client = client_of(own_study)
    (removed,) = client.get("/api/training-set?decided=remove").json()["examples"]
    assert (removed["row"], removed["decision"]) == (3, "remove")
    assert client.get("/api/labels?decided=undecided").json()["matching"] == 299
    assert client.get("/api/labels").json()["decided"] == 1


def test_other_lists_of_an_explanation_are_asked_for(studies: dict[str, TestClient]) -> None:
    def lists(kind: str, show: str) -> tuple[int, int]:
        found = studies[kind].get(address("explain", f"show={show}")).json()
        return len(found["similar"]), len(found["same_words"])

    assert lists("pictures", "influential") == (0, 0)
    assert lists("pictures", "both") == (3, 0)
    assert lists("texts", "words")[1] == 3


# --- streams --------------------------------------------------------------------------------------


@pytest.mark.parametrize("view", [view for view in VIEWS if view.long], ids=lambda view: view.name)
def test_lines_hold_what_the_object_holds(studies: dict[str, TestClient], view: Any) -> None:
    client = studies["pictures"]
    whole = client.get(address(view.name, "page=all" if view.name != "map" else "")).json()
    for lines in (
        client.get(address(view.name, "format=ndjson")),
        client.get(address(view.name), headers={"Accept": NDJSON}),
    ):
        assert lines.headers["content-type"].startswith(NDJSON)
        assert lines.headers["cache-control"] == "no-store"
        first, *entries = map(json.loads, lines.text.splitlines())
        assert {**first, view.long: entries} == whole
    entry = openapi()["paths"][f"/{view.name}"]["get"]["responses"]["200"]["content"][NDJSON]
    check = validator(entry["schema"]["$ref"].rpartition("/")[2])
    for one in entries[:20]:
        check.validate(one)
    assert entries


@pytest.mark.parametrize("media_type", [JSON, NDJSON])
def test_a_long_answer_is_made_while_it_is_sent(media_type: str) -> None:
    made = 0

    def points() -> Iterator[Point]:
        nonlocal made
        for row in range(10_000):
            made += 1
            yield Point(split="train", row=row, id=f"train-{row}", label="Coat", x=0.0, y=1.0)

    about: dict[str, Any] = dict.fromkeys(("study", "algorithm", "method", "output", "trust"))
    content = Map(**about, data_fingerprint=None, kind="pca")
    parts = Answer(content, Rows("points", points(), True)).stream(media_type)
    first = next(parts)
    assert made < 2_000
    sizes = [len(first), *(len(part) for part in parts)]
    assert made == 10_000
    assert max(sizes) < 2 * CHUNK


def test_answers_are_made_off_the_event_loop() -> None:
    async def idents() -> tuple[int, int]:
        return threading.get_ident(), await Threads().run(threading.get_ident)

    with ThreadPoolExecutor(1) as pool:  # the browser's tests leave a loop in this thread
        loop, thread = pool.submit(anyio.run, idents).result()
    assert loop != thread


# --- pictures -------------------------------------------------------------------------------------


def test_examples_lead_to_their_pictures_and_texts(studies: dict[str, TestClient]) -> None:
    found = studies["pictures"].get(address("explain")).json()
    for one in (found["example"], *found["supporting"]):
        picture = studies["pictures"].get(f"/api/{one['picture']}")
        assert picture.headers["content-type"] == "image/png"
        assert picture.content.startswith(b"\x89PNG")
    by_id = studies["pictures"].get(f"/api/picture?split=test&id={found['example']['id']}")
    assert by_id.content == studies["pictures"].get(f"/api/{found['example']['picture']}").content
    text = studies["texts"].get(address("explain")).json()["example"]
    assert text["picture"] is None
    shown = studies["texts"].get("/api/picture?split=test&row=7")
    assert shown.headers["content-type"].startswith("text/plain")
    assert shown.text == text["text"]


# --- headers, methods, sign-in --------------------------------------------------------------------


def test_an_answer_is_asked_for_again_and_not_sent_again(studies: dict[str, TestClient]) -> None:
    client = studies["pictures"]
    first = client.get(address("explain"))
    assert first.headers["cache-control"] == "private, no-cache"
    again = client.get(address("explain"), headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    other = client.get(address("explain", "show=both"))
    assert other.headers["etag"] != first.headers["etag"]
    assert client.get("/api/jobs").headers["cache-control"] == "no-store"
    assert client.head(address("explain")).status_code == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_it_only_reads(studies: dict[str, TestClient], method: str) -> None:
    for path in ("", "/", "/explain?test=%231", "/picture", "/openapi.json", "/nothing"):
        answer = studies["pictures"].request(method, f"/api{path}", follow_redirects=False)
        refused(answer, 405)
        assert "GET" in answer.headers["allow"]


PATHS = ("", "/", "/openapi.json", "/picture?row=1", "/nothing", *(f"/{name}" for name in NAMES))


@pytest.mark.parametrize("path", PATHS)
def test_sign_in_stands_before_it_and_no_other_host_is_answered(
    complete_study: Study, path: str
) -> None:
    client = client_of(complete_study, LOGIN)
    refused(client.get(f"/api{path}"), 401)
    refused(client.get(f"/api{path}", headers={"Host": "evil.example"}), 421)
    client.cookies.update(signed(email="eve@example.org"))
    refused(client.get(f"/api{path}"), 401)
    client.cookies.clear()
    client.cookies.update(signed())
    assert client.get(f"/api{path}").status_code != 401


def test_an_unexpected_error_is_one_line_too(
    complete_study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr("dashboard.api.server.answer_of", fail)
    assert "secret" not in refused(client_of(complete_study).get("/api/overview"), 500)


# --- the document and the page --------------------------------------------------------------------


def test_the_document_is_complete(studies: dict[str, TestClient]) -> None:
    found = studies["pictures"].get("/api/openapi.json").json()
    assert found["openapi"].startswith("3.1")
    assert set(found["paths"]) == {f"/{name}" for name in (*NAMES, "picture")}
    Draft202012Validator.check_schema({"$defs": found["components"]["schemas"]})
    for name, schema in found["components"]["schemas"].items():
        assert schema.get("description"), f"{name} is not described"
    influence = found["components"]["schemas"]["Influential"]["properties"]["influence"]
    assert influence["x-unit"] == "model output"
    for path in found["paths"].values():
        for one in path["get"]["parameters"]:
            assert one["description"].endswith((".", "`.")), one["name"]


def test_the_page_names_every_view_and_loads_nothing(studies: dict[str, TestClient]) -> None:
    for path in ("/api", "/api/"):
        page = studies["pictures"].get(path)
        assert page.headers["content-type"].startswith("text/html")
        assert all(f"GET /api/{name}" in page.text for name in (*NAMES, "picture"))
    assert "<script" not in page.text
    assert "src=" not in page.text
    assert "http" not in page.text.replace("http://127.0.0.1:8501", "")


def test_a_study_kept_for_the_removal_is_found_by_its_key(own_study: Study) -> None:
    kept = keep_set(own_study, [1, 2], "two of them")
    client = client_of(own_study)
    by_set = client.get(f"/api/what-if?set={kept.key}&k=3").json()
    by_ids = client.get(address("what-if")).json()
    assert by_set["set"] == kept.key
    assert by_ids["set"] is None
    assert {**by_set, "set": None} == by_ids


def test_what_supports_most_together_is_removed(studies: dict[str, TestClient]) -> None:
    client = studies["pictures"]
    found = client.get("/api/what-if?together=%233&supporters=5&k=2").json()
    assert len(found["removed"]) == 5
    rows = ",".join(f"%23{one['row']}" for one in found["removed"])
    assert client.get(f"/api/what-if?remove={rows}&k=2").json() == found
    assert len(client.get("/api/what-if?together=test-3").json()["removed"]) == 12
