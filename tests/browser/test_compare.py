"""A person who uploads a model: what it is, what it does differently, why; and hostile files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

from engine import store
from engine.api import Study
from engine.exchange.uploads.keeping import delete
from engine.store import layout
from tests.browser.chromium import server, settled, sideways
from tests.browser.test_accessibility import axe_findings
from tests.builders.hostile_uploads import GOOD_NAME, fitting_weights, make_corpus, mlp_shapes
from tests.conftest import SMALL_STUDY

pytestmark = pytest.mark.browser

WAIT = 180_000


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study of one algorithm, with nothing compared."""
    root = tmp_path_factory.mktemp("studies") / "plain"
    study = Study.create(root, SMALL_STUDY.split("[subset_runs]")[0])
    study.build(workers=0)
    return study


@pytest.fixture(scope="module")
def plain_url(plain: Study) -> Iterator[str]:
    with server(plain.root) as url:
        yield url


@pytest.fixture(autouse=True)
def nothing_uploaded(plain: Study) -> None:
    """Every test begins without uploads, however the last one ended."""
    for upload in plain.uploads:
        delete(plain, upload)


@pytest.fixture
def page(desktop: BrowserContext, plain_url: str) -> Page:
    desktop.set_default_timeout(60_000)
    page = desktop.new_page()
    page.on("dialog", lambda dialog: pytest.fail(f"a script ran: {dialog.message}"))
    return page


def changed(study: Study, checkpoint: int) -> bytes:
    """A checkpoint of the study's own, with noise on it."""
    rng = np.random.default_rng(checkpoint)
    path = study.root / "changed.safetensors"
    weights = store.read_tensors(layout.checkpoint_file(study.root, "mlp", checkpoint))
    noisy = {
        name: np.array(value) + np.float32(0.1) * rng.standard_normal(value.shape, np.float32)
        for name, value in weights.items()
    }
    store.write_tensors(path, noisy, "changed")
    content = path.read_bytes()
    path.unlink()
    return content


def give(page: Page, *files: tuple[str, bytes]) -> None:
    """Upload through the page's own input, and press the button."""
    page.locator("input[type=file]").first.set_input_files(
        [
            {"name": name, "mimeType": "application/octet-stream", "buffer": content}
            for name, content in files
        ]
    )
    button = page.get_by_role("button", name="Check and save")
    expect(button).to_be_enabled()  # so what was said of the files before is gone
    button.click()


def pane(page: Page, name: str) -> None:
    page.get_by_role("radio", name=name).or_(
        page.get_by_role("button", name=name, exact=True)
    ).first.click()


def test_from_upload_to_report(page: Page, plain: Study, plain_url: str, tmp_path: Path) -> None:
    page.goto(f"{plain_url}/compare")
    expect(page.get_by_text("Which model should be compared?")).to_be_visible()
    give(page, *((f"run {n}.safetensors", changed(plain, n)) for n in range(2)))
    glance = page.get_by_role("heading", name="run 0.safetensors at a glance")
    expect(glance).to_be_visible(timeout=WAIT)
    expect(page.get_by_text(re.compile("2 checkpoints, indicative: 3 more")).first).to_be_visible()
    expect(page.get_by_role("list", name="Accuracy by class")).to_be_visible(timeout=WAIT)
    assert axe_findings(page) == []

    page.get_by_role("button", name="Compare their training data").click()
    expect(page.get_by_role("region", name="Direction 1")).to_be_visible(timeout=WAIT)
    (upload,) = plain.uploads
    assert f"b={upload}" in page.url
    expect(page.get_by_text(re.compile("Indicative: one side has 2 checkpoints"))).to_be_visible()
    for row in ("Test examples at the positive end", "Training examples with positive weights"):
        expect(page.get_by_role("list", name=row).locator("a.card").first).to_be_visible()
    page.get_by_label("Name of this direction").fill("Noise")
    page.get_by_role("button", name="Save name and note").click()
    expect(page.get_by_text("Direction 1 · Noise")).to_be_visible()
    assert axe_findings(page) == []

    pane(page, "Hypothesis")
    expect(page.locator(".dl-strip img").first).to_be_visible()
    page.get_by_role("button", name="Try all").click()
    expect(page.get_by_role("region", name=re.compile("Transformations"))).to_be_visible(
        timeout=WAIT
    )
    assert axe_findings(page) == []

    pane(page, "One example")
    expect(page.get_by_text(re.compile("supporting examples are in both"))).to_be_visible()
    page.get_by_role("button", name="Next").click()
    expect(page.get_by_text(re.compile("opposing examples are in both"))).to_be_visible()
    expect(page).to_have_url(re.compile("test="))
    assert axe_findings(page) == []

    page.get_by_role("button", name="Export").click()
    for name, begins in (
        ("Report (HTML)", "<!doctype html>"),
        ("JSON", "{"),
        ("CSV", "directions"),
    ):
        with page.expect_download() as waiting:
            page.get_by_role("button", name=name).click()
        path = tmp_path / waiting.value.suggested_filename
        waiting.value.save_as(path)
        assert path.read_text().startswith(begins)
    found = json.loads(next(tmp_path.glob("*.json")).read_text())
    assert found["comparison"]["directions"]["a"][0]["name"] == "Noise"
    assert len(found["hypotheses"][0]["tested"]) == 13
    report = page.context.new_page()
    requested: list[str] = []
    report.on("request", lambda sent: requested.append(sent.url))
    report.goto(next(tmp_path.glob("*.html")).as_uri())
    expect(report.locator("figure img").first).to_be_visible()
    assert [url for url in requested if not url.startswith(("file:", "data:"))] == []
    report.close()

    page.keyboard.press("Escape")
    page.get_by_text("Uploads (1)").click()
    page.get_by_role("button", name="Delete", exact=True).click()
    page.get_by_role("button", name=re.compile("Delete .* for everyone")).click()
    expect(page.get_by_text(re.compile("and everything computed from it"))).to_be_visible()
    assert not plain.uploads
    assert not layout.comparison_files(plain.root)


def test_a_lasso_in_direction_space_shows_what_it_holds(
    page: Page, plain: Study, plain_url: str, tmp_path: Path
) -> None:
    path = tmp_path / "mine.safetensors"
    path.write_bytes(changed(plain, 0))
    upload = plain.upload(path)
    plain.compare("mlp", upload.id, workers=0)
    page.goto(f"{plain_url}/compare?a=mlp&b={upload.id}&direction=2")
    space = page.get_by_role("heading", name="All test examples along directions 2 and 3")
    expect(space).to_be_visible()
    chart = page.locator(".js-plotly-plot .nsewdrag")
    chart.scroll_into_view_if_needed()
    settled(page)
    around(page, chart, 0.02, 0.98)
    selected = page.get_by_role("heading", name=re.compile("^Selected"))
    expect(selected).to_be_visible()
    expect(page.get_by_text("60; 36 are shown.")).to_be_visible()
    assert axe_findings(page) == []
    settled(page)
    around(page, chart, 0.02, 0.5)
    fewer = page.get_by_text(re.compile(r"^\d+(; 36 are shown)?\.$"))
    expect(fewer).not_to_have_text(re.compile("^60"))
    page.locator("section", has=selected).locator("a.card").first.click()
    expect(page).to_have_url(re.compile(r"/explain\?.*test="))


def around(page: Page, chart: Locator, first: float, last: float) -> None:
    """Draw a lasso around a square of a chart, given in shares of its sides."""
    box = chart.bounding_box()
    assert box is not None
    corners = [(first, first), (last, first), (last, last), (first, last), (first, first + 0.01)]
    at = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in corners]
    page.mouse.move(*at[0])
    page.mouse.down()
    for x, y in at[1:]:
        page.mouse.move(x, y, steps=8)
    page.mouse.up()


def test_hostile_files_through_the_browser(
    page: Page, plain: Study, plain_url: str, tmp_path: Path
) -> None:
    weights = fitting_weights(mlp_shapes(28 * 28, 32, 10))
    canary = tmp_path / "canary"
    corpus = [
        one
        for one in make_corpus(tmp_path / "attacks", weights, canary)
        if one.name.endswith(".safetensors")
        and one.name.isprintable()
        and one.path.stat().st_size < 2**20
    ]
    # test_uploads.py refuses them all; here are some of every kind, and all strange names.
    attacks = [one for one in corpus if one.name != GOOD_NAME]
    attacks += [one for one in corpus if one.name == GOOD_NAME][::4]
    page.goto(f"{plain_url}/compare")
    message = page.locator("p.dl-result[data-kind=wrong]")
    for attack in attacks:
        # A browser sends what is said to be a file's name as it is.
        give(page, (attack.name, attack.path.read_bytes()))
        expect(message, attack.name).to_contain_text(re.compile(attack.says))
    assert len(attacks) >= 20
    assert not canary.exists()
    assert not layout.uploaded_weights_files(plain.root)
    assert page.locator("[data-testid=stException]").count() == 0


def test_what_is_too_large_is_refused_at_once_and_other_files_in_one_line(
    page: Page, plain_url: str, tmp_path: Path
) -> None:
    page.goto(f"{plain_url}/compare")
    sent: list[str] = []
    page.on("request", lambda one: sent.append(one.url) if one.method == "PUT" else None)
    (tmp_path / "a.safetensors").write_bytes(bytes(21 * 2**20))
    page.locator("input[type=file]").first.set_input_files(tmp_path / "a.safetensors")
    expect(page.get_by_text("20.0MB or smaller")).to_be_visible()
    assert sent == []
    page.reload()
    give(page, ("a.pt", b"PK\x03\x04" + bytes(60)))
    message = page.locator("p.dl-result[data-kind=wrong]")
    expect(message).to_contain_text("a.pt is a zip archive. If torch.save made it")


def test_a_phone_does_not_scroll_sideways(browser: Browser, plain: Study, plain_url: str) -> None:
    assert sideways(browser, f"{plain_url}/compare", ".dl-notice") <= 0
