"""How many clicks five journeys take from the landing page, in a real Chromium.

A small study of real models is built and served. Every journey starts on Overview with an empty
history. A click is a press of the mouse; choosing a file counts as one, keys are counted apart.
After every click, reload must show the view that it led to; where it changed the address, Back
shows the view before, and Forward again the one after (`tests/browser/journeys.py`; the tests walk
the same ways by keyboard).
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import BrowserContext, Locator

from benchmarks._report import log, report
from benchmarks._server import serving
from engine.api import Study
from tests.browser.chromium import DESKTOP, chromium
from tests.browser.journeys import JOURNEYS, Journey
from tests.builders.calibrated_study import give_units
from tests.conftest import SMALL_STUDY


class WithMouse(Journey):
    """A person who clicks.

    Attributes:
        clicks, keys: So far.
    """

    def __init__(self, context: BrowserContext, url: str) -> None:
        super().__init__(context, url)
        self.clicks = self.keys = 0

    def act(self, target: Locator) -> None:
        target.click()
        self.clicks += 1

    def press(self, key: str) -> None:
        super().press(key)
        self.keys += 1

    def give(self, *files: Path) -> None:
        """One click on the button that opens the dialog of the system."""
        self.page.locator("input[type=file]").first.set_input_files([str(file) for file in files])
        self.clicks += 1


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
                context = browser.new_context(viewport=DESKTOP)
                journey = WithMouse(context, server.url)
                walk(journey, study)
                log(f"{name}: {journey.clicks} clicks, {journey.keys} keys")
                assert journey.clicks <= most, f"{name}: {journey.clicks} clicks, at most {most}"
                found["clicks"][name] = journey.clicks
                found["keys"][name] = journey.keys
                found["at_most"][name] = most
                found["restored"][name] = journey.checked
                context.close()
    return found


if __name__ == "__main__":
    report("journeys", measure, __doc__ or "")
