"""A person with a browser and long work: start it, leave, come back, stop it."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from engine.api import Study
from engine.running.jobs.queue import job, jobs, submit
from engine.running.launch import _start
from tests.browser.chromium import DESKTOP, server
from tests.builders.job_processes import ended, processes_of, until

pytestmark = pytest.mark.browser


@pytest.fixture
def jobs_url(idle_study: Study, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server whose jobs are those of the tests, too."""
    tests = Path(__file__).parent.parent
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tests / "site"), str(tests.parent)]))
    with server(idle_study.root) as url:
        yield url


def progress(page: Page) -> int:
    return int(page.get_by_role("progressbar").get_attribute("aria-valuenow") or -1)


def test_close_the_tab_and_come_back(
    desktop: BrowserContext,
    browser: Browser,
    idle_study: Study,
    jobs_url: str,
) -> None:
    number = submit(idle_study, "count", {"steps": 200, "seconds": 0.3}, "Count to 200")
    page = desktop.new_page()
    page.goto(f"{jobs_url}/jobs")
    expect(page.get_by_text("Count to 200").first).to_be_visible()
    expect(page.get_by_text(re.compile("about .* left"))).to_be_visible()
    seen = progress(page)
    page.close()
    before = job(idle_study.root, number).done
    until(lambda: job(idle_study.root, number).done > before + 3)

    contexts = [browser.new_context(viewport=DESKTOP) for _ in range(3)]
    pages = [context.new_page() for context in contexts]
    for one in pages:
        one.goto(f"{jobs_url}/jobs")
        expect(one.get_by_role("progressbar")).to_be_visible()
        assert progress(one) >= seen
        assert abs(progress(one) - job(idle_study.root, number).done / 2) <= 10
    pages[0].get_by_role("button", name="Cancel").click()
    for one in pages:
        expect(one.get_by_text("Cancelled")).to_be_visible()
        expect(one.get_by_role("button", name="Retry")).to_be_visible()
    assert job(idle_study.root, number).status == "cancelled"
    assert processes_of(idle_study, number) == []
    for context in contexts:
        context.close()


def test_the_server_is_killed_and_restarted(
    desktop: BrowserContext,
    idle_study: Study,
    jobs_url: str,
) -> None:
    number = submit(idle_study, "count", {"steps": 40, "seconds": 0.25}, "Count")
    child, url = _start(idle_study.root, "127.0.0.1", None)
    page = desktop.new_page()
    page.goto(f"{url}/jobs")
    expect(page.get_by_role("progressbar")).to_be_visible()
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    before = job(idle_study.root, number).done
    until(lambda: job(idle_study.root, number).done > before)
    with server(idle_study.root) as url:
        page.goto(f"{url}/jobs")
        expect(page.get_by_text("Done")).to_be_visible(timeout=60_000)
    found = job(idle_study.root, number)
    assert (found.done, found.attempt, len(jobs(idle_study.root))) == (40, 1, 1)


def test_build_from_the_page(
    desktop: BrowserContext,
    idle_study: Study,
    jobs_url: str,
) -> None:
    page = desktop.new_page()
    page.goto(f"{jobs_url}/jobs")
    expect(page.get_by_text("No jobs yet")).to_be_visible()
    page.get_by_role("button", name="Build what is missing").click()
    expect(page.get_by_text("Failed")).to_be_visible()  # its source is no source
    expect(page.locator(".dl-job-error")).to_contain_text("synthetic")
    page.get_by_text("Log", exact=True).click()
    expect(page.get_by_test_id("stCode")).to_contain_text("Build the study, start 1")
    page.get_by_role("button", name="Retry").click()
    expect(page.locator(".dl-job")).to_have_count(2)
    assert ended(idle_study, 2).status == "failed"
