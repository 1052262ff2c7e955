"""Routes: the pages' frame, sprite sheets, fonts, and a readiness check for the launcher.

The URL of a sprite sheet holds a key of the data, and that of the style sheet one of its content:
browsers may keep both forever.
"""

from __future__ import annotations

import io
import os
import re
from pathlib import Path
from typing import cast

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from dashboard import frame
from dashboard.api.server import api_routes
from dashboard.login import picture_key
from dashboard.parts.palette.search import offers
from dashboard.read import sprite_sheets
from dashboard.read.sprite_sheets import frames_sheet
from dashboard.workspaces import OLD_ADDRESSES, PAGES
from engine import store
from engine.data.fitting import is_by_reference
from engine.running.launch import TOKEN_VARIABLE
from engine.store import layout
from engine.store.cache import FileCache
from engine.store.errors import DataloupeError
from engine.store.layout import Split
from engine.study.examples import read_picture
from engine.study.reader import StudyReader
from engine.study.thumbnails import Sheet, read_sheet
from engine.study.trajectories import read_trajectory

FOREVER = {
    "Cache-Control": "public, max-age=31536000, immutable",
    "X-Content-Type-Options": "nosniff",
}

CHECKED = {"Cache-Control": "no-cache"}
ROWS = re.compile(r"\d{1,9}(-\d{1,9}){0,63}", re.ASCII)


def routes(root: Path) -> list[BaseRoute]:
    """The routes for the study in `root`."""

    def dataset(request: Request) -> tuple[Split, str, bool]:
        """The requested split, the data's fingerprint, and whether pictures are by reference.

        Raises:
            HTTPException: 404 if the URL is not for these data.
        """
        split = request.path_params["split"]
        try:
            path = layout.dataset_file(root)
            fingerprint, referenced = _DATASETS.get(path, lambda: _dataset(path))
        except (OSError, DataloupeError) as error:
            raise HTTPException(404) from error
        if split not in ("train", "test") or request.path_params["key"] != picture_key(fingerprint):
            raise HTTPException(404)
        return cast(Split, split), fingerprint, referenced

    async def stored(request: Request) -> Response:
        split, _, referenced = dataset(request)
        number = request.path_params["sheet"]
        try:
            if referenced:
                sheet = await run_in_threadpool(
                    lambda: read_sheet(StudyReader.open(root), split, number)
                )
            else:  # small: starting a thread or opening the study would take longer
                sheet = Sheet(layout.sprite_file(root, split, number).read_bytes())
        except (OSError, DataloupeError) as error:
            raise HTTPException(404) from error
        return _response(sheet)

    def gathered(request: Request) -> Response:
        split, fingerprint, _ = dataset(request)
        text = request.path_params["rows"]
        if not ROWS.fullmatch(text):
            raise HTTPException(404)
        rows = tuple(map(int, text.split("-")))
        try:
            sheet = sprite_sheets.gathered(root, fingerprint, split, rows).result()
        except (OSError, DataloupeError) as error:
            sprite_sheets.gathered.cache_clear()  # a missing file may be repaired later
            raise HTTPException(404) from error
        if not sheet.whole:
            sprite_sheets.gathered.cache_clear()
        return _response(sheet)

    def picture(request: Request) -> Response:
        """A picture at the size that the models read."""
        split, _, _ = dataset(request)
        study, row = StudyReader.open(root), request.path_params["row"]
        if row >= study.dataset.rows(split):
            raise HTTPException(404)
        file = io.BytesIO()
        try:
            read_picture(study, split, row).save(file, "PNG")
        except (OSError, DataloupeError) as error:
            raise HTTPException(404) from error
        return Response(file.getvalue(), media_type="image/png", headers=FOREVER)

    def frames(request: Request) -> Response:
        """How a test example came about that the models made."""
        dataset(request)
        found = read_trajectory(StudyReader.open(root), request.path_params["row"])
        if found is None:
            raise HTTPException(404)
        file = io.BytesIO()
        frames_sheet(found).save(file, "PNG")
        return Response(file.getvalue(), media_type="image/png", headers=FOREVER)

    def server(request: Request) -> Response:
        if request.path_params["token"] != os.environ.get(TOKEN_VARIABLE):
            raise HTTPException(404)
        return Response(status_code=204)  # not 200, which a different server may return for any URL

    def page_frame(_: Request) -> Response:
        return Response(frame.page(), media_type="text/html", headers=CHECKED)

    def moved(request: Request) -> Response:
        """An old address leads on with its parameters."""
        to = OLD_ADDRESSES[request.url.path.rpartition("/")[2]]
        query = request.url.query
        return RedirectResponse(f"./{to}?{query}" if query else f"./{to}")

    def script(_: Request) -> Response:
        return Response(frame.script(), media_type="text/javascript", headers=CHECKED)

    def style(_: Request) -> Response:
        return Response(frame.style(), media_type="text/css", headers=FOREVER)

    def find(request: Request) -> Response:
        """What the command palette offers for the text typed so far."""
        try:
            found = offers(StudyReader.open(root), request.query_params.get("typed", ""))
        except DataloupeError:
            found = []
        return JSONResponse([vars(one) for one in found], headers=CHECKED)

    fonts = StaticFiles(directory=Path(__file__).parent / "fonts")
    return [
        *(Route(f"/{old}", moved) for old in OLD_ADDRESSES),
        *(Route(f"/{page.address}", page_frame) for page in PAGES),
        Route("/dataloupe/frame.js", script),
        Route("/dataloupe/style.css", style),
        Route("/dataloupe/find", find),
        Route("/dataloupe/sprites/{key}/{split}/{sheet:int}.webp", stored),
        Route("/dataloupe/sprites/{key}/{split}/of/{rows}.webp", gathered),
        Route("/dataloupe/pictures/{key}/{split}/{row:int}.png", picture),
        Route("/dataloupe/frames/{key}/{split}/{row:int}.png", frames),
        Route("/dataloupe/server/{token}", server),
        Mount("/dataloupe/fonts", app=fonts),
        *api_routes(root),
    ]


def _response(sheet: Sheet) -> Response:
    """A sheet, which browsers keep unless a missing picture may come back."""
    headers = FOREVER if sheet.whole else {**FOREVER, "Cache-Control": "no-store"}
    return Response(sheet.content, media_type="image/webp", headers=headers)


_DATASETS: FileCache[tuple[str, bool]] = FileCache(most=8)


def _dataset(path: Path) -> tuple[str, bool]:
    """Fingerprint of the data, and whether its pictures are kept by reference."""
    content = store.read_json(path)
    return str(content["fingerprint"]), is_by_reference(content["encoding"])
