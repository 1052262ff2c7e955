"""One Chromium and one server for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, expect

from engine.api import Study
from tests.browser.chromium import DESKTOP, EXECUTABLE, chromium, server
from tests.builders.synthetic_quality import write_quality
from tests.builders.synthetic_study import write_study

expect.set_options(timeout=30_000)  # A busy machine is slow, not wrong.


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if not Path(EXECUTABLE).exists():
        pytest.skip(f"no Chromium at {EXECUTABLE} (name one in CHROMIUM)")
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    root = tmp_path_factory.mktemp("studies") / "study"
    return write_quality(write_study(root, n_train=300, n_test=150))


@pytest.fixture(scope="session")
def url(study: Study) -> Iterator[str]:
    with server(study.root) as url:
        yield url


@pytest.fixture(scope="session")
def shared(browser: Browser) -> Iterator[BrowserContext]:
    """One profile for all tests, so that Chromium compiles Streamlit's scripts only once."""
    context = browser.new_context(viewport=DESKTOP)
    yield context
    context.close()


@pytest.fixture
def desktop(shared: BrowserContext) -> Iterator[BrowserContext]:
    """A profile in which nobody has been anywhere yet."""
    shared.set_default_timeout(30_000)
    yield shared
    for page in shared.pages:
        if page.url.startswith("http"):
            page.evaluate("localStorage.clear()")
        page.close()
    shared.unroute_all()
    shared.clear_cookies()
    shared.clear_permissions()
