"""A person who makes a model forget: what that would do, the audit, before and after, the model."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from engine.api import Study
from engine.applications.unlearning.audit_record import read_audits
from engine.build.models import load_checkpoint
from engine.store import layout
from engine.training.weights import load_weights
from tests.browser.chromium import server, sideways
from tests.browser.test_accessibility import axe_findings
from tests.builders.copies import copy_of

pytestmark = pytest.mark.browser

WAIT = 180_000


@pytest.fixture(scope="module")
def own_study(small_study: Study, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A copy that the journey of this file writes into."""
    return copy_of(small_study, tmp_path_factory.mktemp("unlearn") / "own")


@pytest.fixture(scope="module")
def own_url(own_study: Study) -> Iterator[str]:
    with server(own_study.root) as url:
        yield url


def pick(page: Page, name: str) -> None:
    """One of a few that stand side by side."""
    page.get_by_role("radio", name=name, exact=True).or_(
        page.get_by_role("button", name=name, exact=True)
    ).first.click()
    page.mouse.move(0, 0)  # a chosen one under the mouse has Streamlit's own colour, 4.45 : 1


def download(page: Page, name: str, folder: Path) -> Path:
    with page.expect_download() as waiting:
        page.get_by_role("button", name=name).click()
    path = folder / waiting.value.suggested_filename
    waiting.value.save_as(path)
    return path


def test_from_a_forget_set_to_a_certified_model(
    desktop: BrowserContext, own_study: Study, own_url: str, tmp_path: Path
) -> None:
    page = desktop.new_page()
    page.goto(f"{own_url}/unlearn")
    expect(page.get_by_text("What should be forgotten?")).to_be_visible()
    pick(page, "Ids")
    page.get_by_label(re.compile("Ids of training")).fill("train-3 7 train-11 15 19 23 nobody 3")
    page.keyboard.press("Control+Enter")
    expect(page.get_by_text(re.compile("No training picture has the id nobody"))).to_be_visible()
    expect(page.get_by_text(re.compile("1 repeated name"))).to_be_visible()
    page.get_by_label("Name of the set").fill("On request")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Forget these 6").click()

    expect(page.get_by_role("heading", name="Predicted effect by class")).to_be_visible()
    expect(page.locator(".dl-title")).to_contain_text("On request")
    page.get_by_role("button", name="Predict outputs").click()
    message = page.get_by_text(re.compile("predicted for models not trained on it"))
    expect(message.first).to_be_visible(timeout=WAIT)
    assert axe_findings(page) == []

    pick(page, "Unlearn and audit")
    expect(page.get_by_text(re.compile("Trains .* models"))).to_be_visible()
    assert axe_findings(page) == []
    page.get_by_role("spinbutton", name="Models on each side").fill("4")
    page.keyboard.press("Enter")
    expect(page.get_by_text(re.compile("Trains 10 models"))).to_be_visible()
    page.get_by_role("button", name="Unlearn and audit").last.click()
    expect(page.get_by_text(re.compile("You can close the browser"))).to_be_visible()
    expect(page.get_by_role("button", name="Cancel")).to_be_visible()
    chart = page.get_by_role("img", name=re.compile("distance from retrained models"))
    expect(chart).to_be_visible(timeout=WAIT)
    expect(page.locator(".dl-grade")).to_contain_text("4 models are few")
    table = page.get_by_role("region", name="Audit on forgotten examples")
    expect(table).to_contain_text("Retrained (floor)")
    assert axe_findings(page) == []
    (audited,) = read_audits(own_study)
    assert audited.forget == [3, 7, 11, 15, 19, 23]
    pick(page, "Test")
    expect(page.get_by_role("region", name="Audit on test examples")).to_be_visible()
    page.reload()
    expect(page.get_by_role("region", name="Audit on test examples")).to_be_visible()

    pick(page, "Before and after")
    forgotten = page.get_by_label("Forgotten training examples").locator("a.card")
    expect(forgotten).to_have_count(6)
    expect(forgotten.first).to_contain_text("retrained")
    answered = page.get_by_label("Supported test examples").locator("a.card")
    expect(answered.first).to_contain_text("right")
    assert axe_findings(page) == []

    pick(page, "The model")
    page.get_by_role("button", name="Make this model").click()
    expect(page.get_by_role("button", name="Model (.safetensors)")).to_be_visible(timeout=WAIT)
    assert axe_findings(page) == []
    model = download(page, "Model (.safetensors)", tmp_path)
    certificate = json.loads(download(page, "Certificate (JSON)", tmp_path).read_text())
    assert certificate["file"] == model.name
    assert certificate["model_sha256"] == hashlib.sha256(model.read_bytes()).hexdigest()
    assert [one["row"] for one in certificate["forgotten"]] == audited.forget
    assert certificate["audit"]["id"] == audited.id
    original = layout.checkpoint_file(own_study.root, "mlp", certificate["checkpoint"]).read_bytes()
    assert certificate["original_sha256"] == hashlib.sha256(original).hexdigest()
    load_weights(model, load_checkpoint(own_study, "mlp", 0, "cpu"))  # it fits the architecture

    page.goto(f"{own_url}/unlearn")
    page.get_by_role("button", name=re.compile("6 forgotten · 4 models")).click()
    expect(chart).to_be_visible()


def test_other_pages_lead_here(desktop: BrowserContext, url: str) -> None:
    page = desktop.new_page()
    page.goto(f"{url}/explain?test=test-5")
    page.get_by_role("button", name="Forget these").click()
    expect(page.get_by_role("heading", name="Unlearn")).to_be_visible()
    expect(page.get_by_role("heading", name="Predicted effect by class")).to_be_visible()
    # The set goes along with every link, those of the header too.
    page.get_by_role("link", name="What if", exact=True).first.click()
    expect(page.get_by_role("heading", name="What if")).to_be_visible()
    page.get_by_role("link", name="Forget these").click()
    expect(page.get_by_role("heading", name="Unlearn")).to_be_visible()


def test_a_phone_does_not_scroll_sideways(browser: Browser, url: str) -> None:
    assert sideways(browser, f"{url}/unlearn", ".dl-notice") <= 0
