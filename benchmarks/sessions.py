"""Twenty, then fifty simultaneous users for two minutes, simulated with Streamlit's protocol.

Each user is a separate session on a real server, with the large study of `benchmarks.page`. About
every two seconds it clicks what a person would click (a page of the gallery, a picture, the next
one, a training picture, a filter, Overview) and waits until the page has run. It also fetches the
sprite sheets that it has not seen. A click is timed from sending it to the end of the script run.
"""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import time
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import numpy as np
import websockets
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.proto.WidgetStates_pb2 import WidgetState

from benchmarks._report import log, report
from benchmarks._server import N_TEST, N_TRAIN, Server, large_study, serving

READERS, MORE_READERS = 20, 50
SECONDS = 120.0
PAUSE = (1.0, 3.0)
"""Seconds between the end of a click and the next click."""
PATIENCE = 30.0
"""Seconds after which a click without a response is an error."""
PER_PAGE = 120
SAMPLE_SECONDS = 1.0


def measure() -> dict[str, Any]:
    study = large_study()
    found = []
    for readers in (READERS, MORE_READERS):
        with serving(study.root) as server:
            found.append(asyncio.run(_read_together(server, readers)))
    few, many = found
    return {"n_train": N_TRAIN, "n_test": N_TEST, **few, "more_readers": many}


async def _read_together(server: Server, n_readers: int) -> dict[str, Any]:
    clicks: list[tuple[str, float]] = []
    errors: list[str] = []
    memory: list[float] = []
    end = time.perf_counter() + SECONDS
    log(f"{n_readers} users for {SECONDS:.0f} s")
    watch = asyncio.create_task(_watch(server, memory))
    readers = [_reader(server, number, end, clicks, errors) for number in range(n_readers)]
    await asyncio.gather(*readers)
    watch.cancel()
    times = [seconds for _, seconds in clicks]
    fifth = len(memory) // 5
    early, late = statistics.mean(memory[fifth : 2 * fifth]), statistics.mean(memory[-fifth:])
    actions = sorted({action for action, _ in clicks})
    return {
        "readers": n_readers,
        "clicking_s": SECONDS,
        "pause_s": PAUSE,
        "clicks": len(clicks),
        "errors": len(errors),
        "first_error": errors[0] if errors else None,
        "p50_ms": round(1000 * statistics.median(times)),
        "p95_ms": round(1000 * float(np.quantile(times, 0.95))),
        "worst_ms": round(1000 * max(times)),
        "p95_ms_by_action": {
            action: round(1000 * float(np.quantile([s for a, s in clicks if a == action], 0.95)))
            for action in actions
        },
        "memory_mb_second_fifth": round(early),
        "memory_mb_last_fifth": round(late),
        "memory_growth": round(late / early - 1, 4),
    }


async def _watch(server: Server, memory: list[float]) -> None:
    while True:
        memory.append(server.memory_mb())
        await asyncio.sleep(SAMPLE_SECONDS)


async def _reader(
    server: Server, number: int, end: float, clicks: list[tuple[str, float]], errors: list[str]
) -> None:
    """Click until `end`; errors are recorded, and the user continues on Overview."""
    chance = random.Random(number)
    address = server.url.replace("http", "ws", 1) + "/_stcore/stream"
    protocol = websockets.Subprotocol("streamlit")
    async with websockets.connect(address, subprotocols=[protocol], max_size=None) as socket:
        reader = Reader(socket, server.url)
        action = "visit_overview"
        while time.perf_counter() < end:
            start = time.perf_counter()
            try:
                await _click(reader, action, chance)
            except (ReaderError, TimeoutError, OSError) as error:
                errors.append(f"{action}: {error!r}")
                action = "visit_overview"
            else:
                clicks.append((action, time.perf_counter() - start))
                action = chance.choice(_NEXT[action])
            await asyncio.sleep(chance.uniform(*PAUSE))


_NEXT = {
    "visit_overview": ["visit_explore", "open_heaviest"],
    "visit_explore": ["turn_page", "open_explain", "filter"],
    "turn_page": ["turn_page", "open_explain", "open_explain"],
    "filter": ["open_explain", "visit_explore"],
    "open_explain": ["next_picture", "next_picture", "open_training"],
    "next_picture": ["next_picture", "next_picture", "open_training", "visit_explore"],
    "open_training": ["open_predicted", "visit_explore", "visit_overview"],
    "open_heaviest": ["open_predicted", "visit_explore"],
    "open_predicted": ["next_picture", "open_training"],
}
"""Possible next clicks after each click; the first five are most of the clicks."""


async def _click(reader: Reader, action: str, chance: random.Random) -> None:
    if action == "visit_overview":
        await reader.visit("")
    elif action == "visit_explore":
        await reader.visit("test-set", page=chance.randint(1, N_TEST // PER_PAGE))
    elif action == "turn_page":
        await reader.turn_to(chance.randint(1, N_TEST // PER_PAGE))
    elif action == "filter":
        await reader.visit("test-set", result="wrong", sort="margin")
    elif action == "next_picture":
        await reader.press("next")
    else:
        gallery = {
            "open_explain": "gallery",
            "open_training": "influences",
            "open_heaviest": "heaviest",
            "open_predicted": "influenced",
        }[action]
        await reader.open_card(gallery, chance.choice(reader.rows[gallery]))


_ERROR = 'class="dl-notice" data-kind="error"'


class ReaderError(Exception):
    """The page showed an error, or the element to click does not exist."""


class Reader:
    """One session: what a browser tab knows about its page."""

    def __init__(self, socket: Any, url: str) -> None:
        self.url = url
        self._socket = socket
        self._query = self._page = ""
        self._widgets: dict[str, str] = {}
        self._known: dict[str, ForwardMsg] = {}
        self._sheets: set[str] = set()
        self._wanted: set[str] = set()
        self.rows: dict[str, list[int]] = {}

    async def visit(self, to: str, /, **query: object) -> None:
        """Follow a link."""
        self._query = urlencode(query)
        message = BackMsg()
        message.rerun_script.query_string = self._query
        message.rerun_script.page_name = to
        await self._run(message)

    async def press(self, key: str) -> None:
        """Press the button with this key."""
        await self._change(WidgetState(id=self._id(key), trigger_value=True))

    async def open_card(self, key: str, row: int) -> None:
        """Click a card of the gallery with this key."""
        events = json.dumps([{"event": "opened", "value": row}])
        id_ = f"$$STREAMLIT_INTERNAL_KEY_{self._id(key)}__events"
        await self._change(WidgetState(id=id_, json_trigger_value=events))

    async def turn_to(self, page: int) -> None:
        """Turn to a page of the gallery."""
        (key,) = [key for key in self._widgets if key.startswith("page_")]
        await self._change(WidgetState(id=self._id(key), int_value=page))

    async def _change(self, state: WidgetState) -> None:
        message = BackMsg()
        message.rerun_script.query_string = self._query
        message.rerun_script.page_script_hash = self._page
        message.rerun_script.widget_states.widgets.append(state)
        await self._run(message)

    def _id(self, key: str) -> str:
        if key not in self._widgets:
            raise ReaderError(f"there is no {key!r} among {sorted(self._widgets)}")
        return self._widgets[key]

    async def _run(self, message: BackMsg) -> None:
        message.rerun_script.cached_message_hashes.extend(self._known)
        await self._socket.send(message.SerializeToString())
        async with asyncio.timeout(PATIENCE):
            while not self._take(await self._socket.recv()):
                pass
        await self._fetch_sheets()

    def _take(self, payload: bytes) -> bool:
        """Read a message from the server; return whether it ends a run."""
        message = ForwardMsg.FromString(payload)
        if message.ref_hash:
            message.CopyFrom(self._known[message.ref_hash])
        elif message.metadata.cacheable:
            self._known[message.hash] = message
        kind = message.WhichOneof("type")
        if kind == "new_session":
            self._widgets.clear()
            self._wanted.clear()
        elif kind == "navigation":
            self._page = message.navigation.page_script_hash
        elif kind == "page_info_changed":
            self._query = message.page_info_changed.query_string
        elif kind == "delta":
            self._see(message.delta.new_element)
        return kind == "script_finished" and message.script_finished in (
            ForwardMsg.FINISHED_SUCCESSFULLY,
            ForwardMsg.FINISHED_FRAGMENT_RUN_SUCCESSFULLY,
        )

    def _see(self, element: Any) -> None:
        if element.HasField("exception"):
            raise ReaderError(element.exception.message)
        if _ERROR in element.html.body:
            raise ReaderError(element.html.body)
        kind = element.WhichOneof("type")
        id_ = getattr(getattr(element, kind), "id", "") if kind else ""
        if id_.startswith("$$ID-"):
            self._widgets[id_.split("-", 2)[2]] = id_
        data = json.loads(element.bidi_component.json or "{}")
        if "groups" in data:
            rows = [card["row"] for group in data["groups"] for card in group["items"]]
            self.rows[id_.split("-", 2)[2]] = rows
            numbers = {row // data["perSheet"] for row in rows}
            self._wanted |= {data["sheets"].replace("{}", str(number)) for number in numbers}

    async def _fetch_sheets(self) -> None:
        for sheet in self._wanted - self._sheets:
            await asyncio.to_thread(_fetch, self.url + sheet)
            self._sheets.add(sheet)


def _fetch(url: str) -> None:
    with urlopen(url, timeout=PATIENCE) as response:
        response.read()


if __name__ == "__main__":
    report("sessions", measure, __doc__ or "")
