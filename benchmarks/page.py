"""How fast pages are with 50,000 training and 10,000 test pictures, and how much memory they use.

The benchmark uses a real server and a real Chromium. *Start* is the time from the start of the
server process to the first painted page, including pictures, in a browser with an empty cache. A
*click* is timed inside the page: from the mouse or key event to the frame after everything
requested is shown and the sprite sheets of its pictures are decoded.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from playwright.sync_api import Browser, BrowserContext, Page

from benchmarks._report import log, report
from benchmarks._server import N_TEST, N_TRAIN, Server, large_study, serving
from engine.api import Study
from engine.study.rankings import find_influences, read_top_of_training, read_totals
from tests.browser.chromium import DESKTOP, chromium

STARTS = 5
CLICKS = 40
WARM_UP, SESSIONS = 10, 10
PER_PAGE = 120
K = 12
_IDLE = '[data-testid="stApp"][data-test-script-state="notRunning"]'

# Times a click: `window.pressed` is the time of the event; `painted` waits for the cards.
_CLOCK = """
window.pressed = 0
for (const kind of ["pointerdown", "keydown"])
  window.addEventListener(kind, event => { window.pressed = event.timeStamp }, true)

window.shown = () => {
  const mounts = [...document.querySelectorAll(".stBidiComponent")]
  const hosts = mounts.flatMap(mount => [...mount.querySelectorAll("*")].filter(n => n.shadowRoot))
  const groups = hosts.flatMap(host => [...host.shadowRoot.querySelectorAll(".groups ul")])
  return groups.map(group => [...group.querySelectorAll(".card")])
}
window.painted = async wanted => {
  const frame = () => new Promise(requestAnimationFrame)
  const rows = () => JSON.stringify(shown().map(cards => cards.map(card => +card.dataset.row)))
  // Check the first card in every frame, and all cards only once it is there.
  const began = performance.now()
  const first = wanted.match(/\\d+/)?.[0]
  while (shown()[0]?.[0]?.dataset.row !== first || rows() !== wanted) {
    if (performance.now() - began > 30_000)
      throw new Error(`waited for ${wanted} where ${rows()} is shown`)
    await frame()
  }
  const sheets = new Set(shown().flat().map(card =>
    card.querySelector(".thumb").style.backgroundImage.slice(5, -2)))
  await Promise.all([...sheets].map(sheet => {
    const picture = new Image()
    picture.src = sheet
    return picture.decode()
  }))
  await frame()
  await frame()
  return performance.now() - window.pressed
}
"""


def measure() -> dict[str, Any]:
    study = large_study()
    with chromium() as browser:
        starts = [_start(browser, study) for _ in range(STARTS)]
        log(f"starts: {', '.join(f'{start:.2f}' for start in starts)} s")
        with serving(study.root) as server:
            session = Session(browser, server)
            actions = {
                "gallery_page": session.turn_pages,
                "open_explain": session.open_explanations,
                "open_explain_first": session.open_first_explanations,
                "next_picture": session.walk,
                "open_training": session.open_training,
                "training_set_page": session.turn_training_pages,
                "training_set_sort": session.sort_training,
                "filter": session.filter,
            }
            times = {}
            for action, clicks in actions.items():
                times[action] = clicks(study)
                log(f"{action}: median {statistics.median(times[action]):.0f} ms")
            memory = server.memory_mb()
            each = _memory_of_sessions(browser, server)
    return {
        "n_train": N_TRAIN,
        "n_test": N_TEST,
        "start_s": round(statistics.median(starts), 2),
        "start_s_worst": round(max(starts), 2),
        "clicks": CLICKS,
        "p95_ms": {action: round(float(np.quantile(ms, 0.95))) for action, ms in times.items()},
        "median_ms": {action: round(statistics.median(ms)) for action, ms in times.items()},
        "memory_mb": round(memory),
        "memory_per_session_mb": round(each, 2),
        "sessions": SESSIONS,
    }


def _start(browser: Browser, study: Study) -> float:
    """Seconds from the start of the server process to the first page with its pictures."""
    context = _context(browser)
    page = context.new_page()
    totals = read_totals(study)
    weight = totals["train_support"] - totals["train_oppose"]
    heaviest = np.argsort(-weight, kind="stable")[:22]
    start = time.perf_counter()
    with serving(study.root) as server:
        page.goto(server.url)
        page.evaluate("wanted => painted(wanted)", _wanted(heaviest))
        seconds = time.perf_counter() - start
    context.close()
    return seconds


class Session:
    """One user with a browser tab."""

    def __init__(self, browser: Browser, server: Server) -> None:
        self.page = _context(browser).new_page()
        self.url = server.url

    def turn_pages(self, study: Study) -> list[float]:
        """Turn to the next page of the gallery."""
        return self._turn("test-set", study.dataset.n_test)

    def turn_training_pages(self, study: Study) -> list[float]:
        """Turn to the next page of the training set."""
        return self._turn("training-set", study.dataset.n_train)

    def sort_training(self, study: Study) -> list[float]:
        """Sort the training set by label suspicion, then in the order of the data again."""
        suspects = study.label_suspicion().order[:PER_PAGE]
        self._open("training-set", _wanted(range(PER_PAGE)))
        times = []
        for number in range(CLICKS):
            name, rows = (
                ("In the order of the data", range(PER_PAGE))
                if number % 2
                else ("Most suspect label", suspects)
            )
            self.page.locator(".st-key-sort input").click()
            option = self.page.get_by_role("option", name=name)
            times.append(self._timed(option.click, _wanted(rows)))
        return times

    def _turn(self, address: str, n: int) -> list[float]:
        self._open(address, _wanted(range(PER_PAGE)))
        pages = -(-n // PER_PAGE)
        turns = []
        for number in range(1, CLICKS + 1):
            first = number % pages * PER_PAGE
            button = self.page.get_by_role("button", name="Next page")
            turns.append(self._timed(button.click, _wanted(range(first, first + PER_PAGE))))
        return turns

    def open_explanations(self, study: Study) -> list[float]:
        """Open one picture of the gallery after the other, and go back each time."""
        gallery = _wanted(range(PER_PAGE))
        self._open("test-set", gallery)
        times = []
        for row in range(CLICKS + 1):
            card = self.page.locator(f'a.card[data-row="{row}"]')
            times.append(self._timed(card.click, _explained(study, row)))
            self.page.go_back()
            self.page.evaluate("wanted => painted(wanted)", gallery)
        return times[1:]  # The first also fetches parts of the page: see `open_first_explanations`.

    def open_first_explanations(self, study: Study) -> list[float]:
        """Open a picture of a gallery page that was just loaded."""
        times = []
        for number in range(CLICKS):
            first = number * PER_PAGE % (study.dataset.n_test - PER_PAGE)
            page = first // PER_PAGE + 1
            row = first + number % 30
            self._open(f"test-set?page={page}", _wanted(range(first, first + PER_PAGE)))
            card = self.page.locator(f'a.card[data-row="{row}"]')
            times.append(self._timed(card.click, _explained(study, row)))
        return times

    def walk(self, study: Study) -> list[float]:
        """Go to the next picture by key."""
        self._open("explain?test=%230", _explained(study, 0))
        keys = self.page.keyboard
        return [
            self._timed(lambda: keys.press("ArrowRight"), _explained(study, row))
            for row in range(1, CLICKS + 1)
        ]

    def open_training(self, study: Study) -> list[float]:
        """Open a training picture of an explanation."""
        times = []
        for row in range(CLICKS):
            self._open(f"explain?test=%23{row}", _explained(study, row))
            train = int(find_influences(study, row, K)[0][0])
            card = self.page.locator("section[data-sign=support] a.card").first
            top = read_top_of_training(study, train)
            sides = (top[f"{sign}_index"][:K] for sign in ("support", "oppose"))
            # An example may help or hurt fewer than K others: the rest of its row is −1.
            similar = study.neighbours("train", train, K)[0]
            wanted = _wanted(*(rows[rows >= 0] for rows in sides), similar)
            times.append(self._timed(card.click, wanted))
        return times

    def filter(self, study: Study) -> list[float]:
        """Show only wrong predictions, then all again."""
        wrong = np.flatnonzero(~study.predictions("test")["correct"])[:PER_PAGE]
        self._open("test-set", _wanted(range(PER_PAGE)))
        self.page.get_by_role("button", name="Filters").click()  # stays open
        times = []
        for number in range(CLICKS):
            name, rows = ("Any", range(PER_PAGE)) if number % 2 else ("Wrong", wrong)
            button = self.page.locator(".st-key-result button").filter(has_text=name)
            times.append(self._timed(button.click, _wanted(rows)))
        return times

    def _open(self, path: str, wanted: str) -> None:
        self.page.goto(f"{self.url}/{path}")
        self.page.evaluate("wanted => painted(wanted)", wanted)

    def _timed(self, press: Callable[[], None], wanted: str) -> float:
        self.page.wait_for_selector(_IDLE)
        self.page.wait_for_timeout(150)
        press()
        return float(self.page.evaluate("wanted => painted(wanted)", wanted))


def _explained(study: Study, row: int) -> str:
    support, _, oppose, _ = find_influences(study, row, K)
    right = bool(study.predictions("test")["correct"].iloc[row])
    return _wanted(support, oppose) if right else _wanted(oppose, support)


def _wanted(*groups: Any) -> str:
    """The rows of the expected cards, in the format that the page reports."""
    return "[" + ",".join(f"[{','.join(str(int(row)) for row in rows)}]" for rows in groups) + "]"


def _context(browser: Browser) -> BrowserContext:
    context = browser.new_context(viewport=DESKTOP)
    context.set_default_timeout(30_000)
    context.add_init_script(_CLOCK)
    return context


def _memory_of_sessions(browser: Browser, server: Server) -> float:
    """MB that each additional session adds to the server, after `WARM_UP` others."""
    others = [_reader(browser, server, test) for test in range(WARM_UP)]
    before = server.memory_mb()
    contexts = [_reader(browser, server, WARM_UP + test) for test in range(SESSIONS)]
    added = (server.memory_mb() - before) / SESSIONS
    for context in others + contexts:
        context.close()
    return added


def _reader(browser: Browser, server: Server, test: int) -> BrowserContext:
    """A session that has opened three pages."""
    context = _context(browser)
    page: Page = context.new_page()
    for path in ("", "test-set", f"explain?test=%23{test}"):
        page.goto(f"{server.url}/{path}")
        page.wait_for_selector("a.card")
        page.wait_for_selector(_IDLE)
    return context


if __name__ == "__main__":
    report("page", measure, __doc__ or "")
