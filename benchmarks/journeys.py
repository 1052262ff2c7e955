"""How many clicks five journeys take from the landing page, in a real Chromium.

A small study of real models is built and served. Every journey starts on Overview with an empty
history. A click is a press of the mouse; choosing a file counts as one, keys are counted apart.
After every click that changes the address, Back must show the view before it, Forward and reload
the view after it: what is compared is the address and the heading of the page.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Browser, Locator, Page, expect

from benchmarks._report import log, report
from benchmarks._server import serving
from engine import store
from engine.api import Study
from engine.store import layout
from tests.browser.chromium import DESKTOP, chromium, settled
from tests.builders.calibrated_study import give_units
from tests.conftest import SMALL_STUDY

WAIT = 240_000
SUSPECTS = 10


class Journey:
    """A person on the way, who counts clicks and keys.

    Attributes:
        clicks, keys: So far.
        checked: Clicks after which Back, Forward and reload restored the views.
    """

    def __init__(self, browser: Browser, url: str) -> None:
        context = browser.new_context(viewport=DESKTOP, accept_downloads=True)
        context.set_default_timeout(60_000)
        self.page = context.new_page()
        self.page.goto(url)
        expect(self.page.locator(".dl-finding").last).to_be_visible(timeout=WAIT)
        self.clicks = self.keys = self.checked = 0

    def click(self, target: Locator, shown: Locator) -> None:
        """Click, wait for what it shows, and walk the history there and back."""
        page = settled(self.page)
        before = page.url, heading(page)
        entries = page.evaluate("history.length")
        target.click()
        self.clicks += 1
        expect(shown.first).to_be_visible(timeout=WAIT)
        after = settled(page).url, heading(page)
        if after[0] == before[0]:
            return
        assert page.evaluate("history.length") == entries + 1, f"{before[0]} → {after[0]}"
        page.go_back()
        self._shows(*before)
        page.go_forward()
        self._shows(*after)
        page.reload()
        self._shows(*after)
        expect(shown.first).to_be_visible(timeout=WAIT)
        self.checked += 1

    def press(self, key: str) -> None:
        """Press a key, and wait until the page has followed."""
        settled(self.page).keyboard.press(key)
        self.keys += 1

    def give(self, *files: Path) -> None:
        """Choose files: one click on the button that opens the dialog of the system."""
        self.page.locator("input[type=file]").first.set_input_files([str(file) for file in files])
        self.clicks += 1

    def download(self, target: Locator) -> str:
        """Click what downloads a file; its text."""
        with self.page.expect_download(timeout=WAIT) as download:
            target.click()
        self.clicks += 1
        return Path(download.value.path()).read_text(encoding="utf-8")

    def button(self, name: str | re.Pattern[str]) -> Locator:
        return self.page.get_by_test_id("stMain").get_by_role("button", name=name)

    def link(self, name: str | re.Pattern[str]) -> Locator:
        return self.page.locator(".dl-finding").get_by_role("link", name=name)

    def title(self, name: str | re.Pattern[str]) -> Locator:
        return self.page.get_by_role("heading", name=name)

    def _shows(self, url: str, title: str) -> None:
        self.page.wait_for_url(url)
        expect(self.page.locator("h1").first).to_have_text(title, timeout=WAIT)


def heading(page: Page) -> str:
    return page.locator("h1").first.inner_text()


def wrong_prediction(go: Journey, study: Study) -> None:
    """A wrong prediction, and the training examples that caused it."""
    go.click(go.button(re.compile("(Most confident|Worst) mistake")), go.title("Opposing"))


def suspect_labels(go: Journey, study: Study) -> None:
    """Ten suspect labels, decided on by keys and exported."""
    go.click(go.link(re.compile("Review the labels")), go.title(re.compile("^Is this")))
    for number in range(1, SUSPECTS + 1):
        go.press("r")
        expect(go.page.get_by_text(re.compile(rf"^{number} of \d+ reviewed"))).to_be_visible()
    go.click(go.button(re.compile("Export .* decisions")), go.button("CSV"))
    lines = go.download(go.button("CSV")).strip().splitlines()
    assert len(lines) == 1 + SUSPECTS, lines


def removal(go: Journey, study: Study) -> None:
    """A removal, its predicted effect, and its verification by retraining."""
    go.click(go.button(re.compile("(Most confident|Worst) mistake")), go.title("Opposing"))
    go.click(go.button("What if").first, go.title("Predicted effect by class"))
    result = go.page.get_by_text(re.compile(r"models trained with these examples"))
    go.click(go.button("Verify by retraining"), result)


def upload(go: Journey, study: Study) -> None:
    """A checkpoint, compared with the study's own."""
    go.click(go.link("Open Compare"), go.title("Compare"))
    with tempfile.TemporaryDirectory() as folder:
        go.give(*(_changed(study, number, Path(folder)) for number in range(2)))
        expect(go.button("Check and save")).to_be_enabled(timeout=WAIT)
        go.click(go.button("Check and save"), go.title(re.compile("at a glance")))
    go.click(go.button("Compare their training data"), go.title("Direction 1"))


def _changed(study: Study, number: int, folder: Path) -> Path:
    """A checkpoint of the study's own, with noise on it."""
    rng = np.random.default_rng(number)
    weights = store.read_tensors(layout.checkpoint_file(study.root, "mlp", number))
    noisy = {
        name: np.array(value) + np.float32(0.1) * rng.standard_normal(value.shape, np.float32)
        for name, value in weights.items()
    }
    path = folder / f"run-{number}.safetensors"
    store.write_tensors(path, noisy, "changed")
    return path


def brittle(go: Journey, study: Study) -> None:
    """Brittle predictions, verified and exported."""
    go.click(go.link("Verify them"), go.title("Brittle predictions"))
    verified = go.page.locator("a.card .tag").filter(has_text=re.compile("verified|refuted"))
    start = go.page.locator(".st-key-verify_first button")
    go.click(go.button("Verify").first, start)
    go.click(start, verified)
    go.click(go.button(re.compile("^Export")), go.button("CSV"))
    assert ",verified," in go.download(go.button("CSV"))


JOURNEYS: dict[str, tuple[int, Callable[[Journey, Study], None]]] = {
    "wrong_prediction": (2, wrong_prediction),
    "suspect_labels": (6, suspect_labels),
    "removal": (4, removal),
    "upload": (5, upload),
    "brittle": (5, brittle),
}
"""Journey → the most clicks that it may take, and the way."""


def measure() -> dict[str, Any]:
    """Walk every journey."""
    found: dict[str, Any] = {"clicks": {}, "keys": {}, "at_most": {}, "restored": {}}
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        log("building a small study")
        study = Study.create(Path(folder) / "study", SMALL_STUDY)
        study.build(workers=0)
        give_units(study)
        with serving(study.root) as server:
            for name, (most, walk) in JOURNEYS.items():
                journey = Journey(browser, server.url)
                walk(journey, study)
                log(f"{name}: {journey.clicks} clicks, {journey.keys} keys")
                assert journey.clicks <= most, f"{name}: {journey.clicks} clicks, at most {most}"
                found["clicks"][name] = journey.clicks
                found["keys"][name] = journey.keys
                found["at_most"][name] = most
                found["restored"][name] = journey.checked
                journey.page.context.close()
    return found


if __name__ == "__main__":
    report("journeys", measure, __doc__ or "")
