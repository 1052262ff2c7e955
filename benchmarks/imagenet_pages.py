"""Pages of a study with 1,281,167 training and 50,000 test pictures: time of a click, and memory.

    python -m benchmarks.imagenet_pages --json [--save]

As `benchmarks.page`, on the study of `benchmarks.imagenet_study`: `page_p95_ms` of each action by
the 95th percentile of its clicks, and `server_mib`, the memory of the server once every page has
been open and `readers` sessions have read on (anonymous memory, and all that is resident). The
first page of a server takes longer: `overview_first_s`. `DATALOUPE_IMAGENET_TRAIN` and `_TEST`
make a smaller study.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np
from playwright.sync_api import Browser

from benchmarks._report import log, report
from benchmarks._server import Server, serving
from benchmarks.imagenet_study import N_TEST, N_TRAIN, imagenet_study
from benchmarks.page import _IDLE, Session, _context
from tests.browser.chromium import chromium

PAGES = (
    "test-set",
    "explain?test=%237",
    "training-set",
    "training-set?view=review",
    "training?train=%239",
    "map",
    "brittle",
    "what-if",
    "unlearn",
    "compare",
    "quality",
    "live",
    "provenance",
)
READERS = 20
WAIT = 120_000


def measure() -> dict[str, Any]:
    study = imagenet_study()
    with chromium() as browser, serving(study.root) as server:
        first = _seconds(browser, server, "")
        log(f"overview: {first:.1f} s")
        opened = {path: _seconds(browser, server, path) for path in PAGES}
        session = Session(browser, server)
        actions = {
            "page": session.turn_pages,
            "open": session.open_explanations,
            "next": session.walk,
            "training_picture": session.open_training,
            "training_page": session.turn_training_pages,
            "training_sort": session.sort_training,
            "filter": session.filter,
        }
        times = {}
        for action, clicks in actions.items():
            times[action] = clicks(study)
            log(f"{action}: median {statistics.median(times[action]):.0f} ms")
        _read(browser, server)
        return {
            "n_train": N_TRAIN,
            "n_test": N_TEST,
            "page_p95_ms": {name: _p95(ms) for name, ms in times.items()},
            "page_median_ms": {name: round(statistics.median(ms)) for name, ms in times.items()},
            "overview_first_s": round(first, 1),
            "first_open_s": {path: round(seconds, 1) for path, seconds in opened.items()},
            "readers": READERS,
            "server_mib": {
                "anonymous": _mib(server, "RssAnon"),
                "resident": _mib(server, "VmRSS"),
            },
        }


def _seconds(browser: Browser, server: Server, path: str) -> float:
    """Seconds until a page is complete in a new tab, with all that it finds out afterwards."""
    context = _context(browser)
    page = context.new_page()
    start = time.perf_counter()
    page.goto(f"{server.url}/{path}")
    page.wait_for_selector(_IDLE, timeout=WAIT)
    page.wait_for_load_state("networkidle", timeout=WAIT)
    page.wait_for_selector(_IDLE, timeout=WAIT)
    seconds = time.perf_counter() - start
    context.close()
    return seconds


def _read(browser: Browser, server: Server) -> None:
    """Sessions that stay open, each with an explanation of its own."""
    contexts = [_context(browser) for _ in range(READERS)]
    for number, context in enumerate(contexts):
        page = context.new_page()
        page.goto(f"{server.url}/explain?test=%23{number}")
        page.wait_for_selector("a.card", timeout=WAIT)
    for context in contexts:
        context.close()


def _p95(milliseconds: list[float]) -> int:
    return round(float(np.quantile(milliseconds, 0.95)))


def _mib(server: Server, field: str) -> int:
    return round(server.memory_mb(field) * 1e6 / 2**20)


if __name__ == "__main__":
    report("imagenet_pages", measure, __doc__ or "")
