"""A person who wants exact scores: starts, cancels, leaves, comes back, reads and goes on."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from engine.api import Study
from engine.applications.replay.answer import KIND, read_answer
from engine.running.jobs.queue import jobs
from engine.store.quantities import CHANGE
from engine.study.removal_sets import keep_set
from tests.browser.chromium import DESKTOP, server, settled, sideways
from tests.builders.calibrated_study import give_units

pytestmark = pytest.mark.browser
TEST = "test-7"


@pytest.fixture(scope="module")
def real(small_study: Study, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A small study of real models, which retrain in a moment."""
    root = tmp_path_factory.mktemp("exact") / "study"
    return give_units(Study.open(shutil.copytree(small_study.root, root)))


@pytest.fixture(scope="module")
def url(real: Study) -> Iterator[str]:
    with server(real.root) as url:
        yield url


def opened(browser: Browser, url: str, address: str) -> Page:
    """The address in a browser of its own."""
    context = browser.new_context(viewport=DESKTOP, base_url=url)
    context.set_default_timeout(30_000)
    page = context.new_page()
    page.goto(address)
    return page


def test_start_cancel_come_back_and_read(real: Study, url: str, browser: Browser) -> None:
    page = opened(browser, url, f"explain?test={TEST}")
    compute = page.get_by_role("button", name="Compute exactly")
    expect(page.get_by_text("through the training of 5 models")).to_be_visible()
    compute.click()
    expect(page.get_by_text("You can close the browser")).to_be_visible()
    expect(compute).to_have_count(0)
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_text("Cancelled")).to_be_visible()
    assert [job.status for job in jobs(real.root) if job.kind == KIND] == ["cancelled"]

    compute.click()
    expect(page.get_by_text("You can close the browser")).to_be_visible()
    page.context.close()

    page = opened(browser, url, f"explain?test={TEST}")
    expect(page.get_by_text("Supporting, exactly")).to_be_visible(timeout=90_000)
    expect(page.get_by_text(re.compile(r"^Smoothness \d"))).to_be_visible()
    expect(page.get_by_text("You can close the browser")).to_have_count(0)
    answer = read_answer(real, 7, "mlp")
    assert answer is not None
    rows, _ = answer.strongest(10)
    exact = page.locator("section", has_text="Supporting, exactly")
    first = exact.locator(f'a.card[data-row="{rows[0]}"]')
    models = answer.agreeing(rows)[0]
    expect(first).to_contain_text(f"helps in {models} of 5")
    page.context.close()
    assert sideways(browser, f"{url}/explain?test={TEST}", ".gallery") <= 0


def test_what_if_and_brittle_use_it(real: Study, url: str, browser: Browser) -> None:
    answer = read_answer(real, 7, "mlp")
    assert answer is not None, "the first test computes it"
    rows, _ = answer.strongest(5)
    kept = keep_set(real, rows.tolist(), "five")
    page = opened(browser, url, f"what-if?set={kept.key}")
    exact = page.locator("section", has_text="Exactly, by replay")
    expect(exact.locator('a.card[data-row="7"]')).to_contain_text(
        CHANGE.text(answer.without(rows).mean)
    )
    page.goto(f"brittle?test={TEST}")
    expect(page.get_by_role("heading", name="By exact scores")).to_be_visible()
    expect(page.get_by_text("Replay of 5 models:")).to_be_visible()
    settled(page)
    page.context.close()
