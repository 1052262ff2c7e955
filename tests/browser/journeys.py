"""Five journeys through the dashboard, for a person with a mouse or with a keyboard.

Every journey starts on Overview with an empty history. After every step, reload must show the view
that it led to; where the step changed the address, Back shows the view before, and Forward again
the one after.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from playwright.sync_api import BrowserContext, Locator, expect

from engine import store
from engine.api import Study
from engine.store import layout
from tests.browser.chromium import settled

WAIT = 240_000
SUSPECTS = 10


class Journey:
    """A person on the way. How this one acts on a control is up to the class below.

    Attributes:
        shown: Part of the current view.
        checked: Steps after which Back, Forward and reload restored the views.
    """

    def __init__(self, context: BrowserContext, url: str) -> None:
        context.set_default_timeout(60_000)
        self.page = context.new_page()
        self.page.goto(url)
        self.shown = self.page.locator(".dl-finding").last
        expect(self.shown).to_be_visible(timeout=WAIT)
        self.checked = 0

    def act(self, target: Locator) -> None:
        """Press a button, or follow a link."""
        raise NotImplementedError

    def step(self, target: Locator, shown: Locator) -> None:
        """Act, wait for what it shows, and walk the history there and back."""
        page = settled(self.page)
        before, seen = page.url, self.shown
        entries = page.evaluate("history.length")
        self.act(target)
        self.shown = shown.first
        expect(self.shown).to_be_visible(timeout=WAIT)
        after = settled(page).url
        if after != before:
            assert page.evaluate("history.length") == entries + 1, f"{before} → {after}"
            page.go_back()
            self._shows(before, seen)
            page.go_forward()
            self._shows(after, self.shown)
        page.reload()
        self._shows(after, self.shown)
        self.checked += 1

    def open(self, target: Locator, shown: Locator) -> None:
        """Act on a button that opens a few more, and wait for one of them."""
        self.act(target)
        expect(shown.first).to_be_visible(timeout=WAIT)

    def press(self, key: str) -> None:
        """Press a key, once the page has followed."""
        settled(self.page).keyboard.press(key)

    def give(self, *files: Path) -> None:
        """Choose files in the dialog of the system."""
        raise NotImplementedError

    def download(self, target: Locator) -> str:
        """Act on what downloads a file; its text."""
        with self.page.expect_download(timeout=WAIT) as download:
            self.act(target)
        return Path(download.value.path()).read_text(encoding="utf-8")

    def button(self, name: str | re.Pattern[str]) -> Locator:
        return self.page.get_by_role("button", name=name)

    def link(self, name: str | re.Pattern[str]) -> Locator:
        return self.page.locator(".dl-finding").get_by_role("link", name=name)

    def title(self, name: str | re.Pattern[str]) -> Locator:
        return self.page.get_by_role("heading", name=name)

    def _shows(self, url: str, seen: Locator) -> None:
        self.page.wait_for_url(url)
        expect(seen).to_be_visible(timeout=WAIT)
        assert settled(self.page).url == url


def wrong_prediction(go: Journey, study: Study) -> None:
    """A wrong prediction, and the training examples that caused it."""
    go.step(go.button(re.compile("(Most confident|Worst) mistake")), go.title("Opposing"))


def suspect_labels(go: Journey, study: Study) -> None:
    """Ten suspect labels, decided on by keys and exported."""
    go.step(go.link(re.compile("Review the labels")), go.title(re.compile("^Is this")))
    for number in range(1, SUSPECTS + 1):
        go.press("r")
        reviewed = go.page.get_by_text(re.compile(rf"^{number} of \d+ reviewed"))
        expect(reviewed).to_be_visible()
    address = go.page.url
    go.page.reload()
    expect(reviewed).to_be_visible()
    assert settled(go.page).url == address
    go.open(go.button(re.compile("Export .* decisions")), go.button("CSV"))
    lines = go.download(go.button("CSV")).strip().splitlines()
    assert len(lines) == 1 + SUSPECTS, lines


def removal(go: Journey, study: Study) -> None:
    """A removal, its predicted effect, and its verification by retraining."""
    go.step(go.button(re.compile("(Most confident|Worst) mistake")), go.title("Opposing"))
    go.step(go.button("What if").first, go.title("Predicted effect by class"))
    result = go.page.get_by_text(re.compile(r"models trained with these examples"))
    go.step(go.button("Verify by retraining"), result)


def upload(go: Journey, study: Study) -> None:
    """A checkpoint, compared with the study's own."""
    go.step(go.link("Open Compare"), go.title("Compare"))
    with tempfile.TemporaryDirectory() as folder:
        go.give(*(_changed(study, number, Path(folder)) for number in range(2)))
        expect(go.button("Check and save")).to_be_enabled(timeout=WAIT)
        go.step(go.button("Check and save"), go.title(re.compile("at a glance")))
    go.step(
        go.button("Compare their training data"),
        go.title(re.compile("at the (positive|negative) end")),
    )


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
    go.step(go.link("Verify them"), go.title("Brittle predictions"))
    verified = go.page.locator("a.card .tag").filter(has_text=re.compile("verified|refuted"))
    start = go.page.locator(".st-key-verify_first button")
    go.open(go.button("Verify").first, start)
    go.step(start, verified)
    go.open(go.button(re.compile("^Export")), go.button("CSV"))
    assert ",verified," in go.download(go.button("CSV"))


JOURNEYS: dict[str, tuple[int, Callable[[Journey, Study], None]]] = {
    "wrong_prediction": (2, wrong_prediction),
    "suspect_labels": (6, suspect_labels),
    "removal": (4, removal),
    "upload": (5, upload),
    "brittle": (5, brittle),
}
"""Journey → the most clicks that it may take, and the way."""
