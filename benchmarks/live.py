"""How long a live query takes on the demo, and how much memory its worker uses.

    python -m benchmarks.live --json [--save]

*First* is a cold start: a worker process starts, imports torch, loads the models, maps the stored
files and answers. Then queries go through that worker one after the other, as the page sends them,
alternating test pictures (PNG, 28 × 28) and photos (JPEG, 12 megapixels, like those of phones).
*Page* is the waiting time in Chromium, from choosing a file to the displayed result.
"""

from __future__ import annotations

import io
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import FilePayload

from benchmarks._report import log, report
from benchmarks._server import serving
from benchmarks._study import demo
from dashboard.read.live_queries import ANSWER_SECONDS, LOADING_SECONDS, MEMORY_BYTES, THREADS
from engine.api import Study
from engine.applications.live import Query, run_query
from engine.running.kept_worker import KeptWorker
from engine.study.examples import read_arrays
from engine.study.live_and_maps import read_live
from tests.browser.chromium import DESKTOP, chromium, settled

FIRSTS = 3
QUERIES = 60
PAGE_QUERIES = 20
PHOTO = 4000, 3000


def measure() -> dict[str, Any]:
    study = demo()
    (algorithm,) = study.spec.algorithms
    live = read_live(study, algorithm)
    queries = [
        Query(study.root, algorithm, {"picture": content}) for content in contents(study, QUERIES)
    ]
    firsts = []
    for _ in range(FIRSTS):
        worker = KeptWorker(THREADS, MEMORY_BYTES, idle_seconds=600, waiting_seconds=1)
        start = time.perf_counter()
        worker.call(run_query, queries[0], LOADING_SECONDS)
        firsts.append(time.perf_counter() - start)
        log(f"first result after {firsts[-1]:.2f} s")
        if len(firsts) < FIRSTS:
            worker.end()
    times: dict[str, list[float]] = {"picture": [], "photo": []}
    for number, query in enumerate(queries):
        start = time.perf_counter()
        worker.call(run_query, query, ANSWER_SECONDS)
        times["photo" if number % 2 else "picture"].append(time.perf_counter() - start)
    memory = {
        name: round(memory_mb(worker.pid, field))
        for name, field in (("allocated", "RssAnon"), ("mapped", "RssFile"), ("in_all", "VmRSS"))
    }
    worker.end()
    every = [*times["picture"], *times["photo"]]
    return {
        "first_s": round(statistics.median(firsts), 2),
        "p50_ms": _ms(every, 0.5),
        "p95_ms": _ms(every, 0.95),
        "by_kind_ms": {
            kind: {"p50": _ms(found, 0.5), "p95": _ms(found, 0.95)} for kind, found in times.items()
        },
        "page": page_times(study),
        "worker_memory_mb": memory,
        "kept_on_disk_mb": round(live.kept_bytes / 1e6),
        "scoring_checkpoints": live.checkpoints,
        "predicting_checkpoints": study.checkpoints(algorithm),
        "n_train": study.dataset.n_train,
        "solver": study.badge(algorithm).solver,
        "queries": QUERIES,
        "threads": THREADS,
    }


def contents(study: Study, count: int) -> list[bytes]:
    """Files as a user would upload them, alternating test pictures and photos."""
    pixels = read_arrays(study, "test")[0]["input"]
    files = []
    for number in range(count):
        picture = Image.fromarray(np.array(pixels[number, 0]))
        file = io.BytesIO()
        if number % 2:
            large = picture.resize(PHOTO, Image.Resampling.BICUBIC).convert("RGB")
            large.save(file, "JPEG", quality=90)
        else:
            picture.save(file, "PNG")
        files.append(file.getvalue())
    return files


def page_times(study: Study) -> dict[str, Any]:
    """Waiting times of a user, in milliseconds."""
    files: list[FilePayload] = [
        {"name": f"{n}.{'jpg' if n % 2 else 'png'}", "mimeType": "image/png", "buffer": content}
        for n, content in enumerate(contents(study, PAGE_QUERIES + 1))
    ]
    times = []
    with serving(study.root) as server, chromium() as browser:
        page = browser.new_page(viewport=DESKTOP)
        page.set_default_timeout(120_000)
        page.goto(f"{server.url}/live")
        page.wait_for_selector("input[type=file]", state="attached")
        settled(page)
        before = ""
        for file in files:
            start = time.perf_counter()
            page.locator("input[type=file]").set_input_files(files=[file])
            page.wait_for_function(
                """before => {
                    const own = document.querySelector("img.dl-own")
                    const idle = document.querySelector('[data-test-script-state="notRunning"]')
                    return idle && own && own.src !== before
                }""",
                arg=before,
                polling="raf",
            )
            page.locator("section[data-sign=oppose] a.card").first.wait_for()
            times.append(time.perf_counter() - start)
            before = page.locator("img.dl-own").get_attribute("src") or ""
        memory = server.memory_mb()
    later = times[1:]
    return {
        "first_ms": round(1000 * times[0]),
        "p50_ms": _ms(later, 0.5),
        "p95_ms": _ms(later, 0.95),
        "queries": len(later),
        "server_memory_mb": round(memory),
    }


def memory_mb(pid: int | None, field: str) -> float:
    """A field of a process's /proc/PID/status, in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise KeyError(field)


def _ms(seconds: list[float], quantile: float) -> int:
    return round(1000 * float(np.quantile(seconds, quantile)))


if __name__ == "__main__":
    report("live", measure, __doc__ or "")
