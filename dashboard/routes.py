"""What the server serves beside the pages: sprite sheets and the fonts.

A sheet's address holds a key of the data, so a browser may keep it for ever.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import cast

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from dashboard.login import picture_key
from engine import store
from engine.errors import DataloupeError
from engine.layout import Layout, Split

FOREVER = {
    "Cache-Control": "public, max-age=31536000, immutable",
    "X-Content-Type-Options": "nosniff",
}


def routes(root: Path) -> list[BaseRoute]:
    """The routes for the study in `root`."""
    files = Layout(root)

    # An explanation asks for two dozen sheets at once. Each is small, so it is read right here:
    # handing it to a thread and back, and opening the study, would take longer than reading.
    async def sprite(request: Request) -> Response:
        split, sheet = request.path_params["split"], request.path_params["sheet"]
        if split not in ("train", "test"):
            raise HTTPException(404)
        try:
            status = files.dataset_file.stat()
            dataset = _fingerprint(files.dataset_file, status.st_mtime_ns, status.st_size)
            if request.path_params["key"] != picture_key(dataset):
                raise HTTPException(404)
            content = files.sprite_file(cast(Split, split), sheet).read_bytes()
        except (OSError, DataloupeError) as error:
            raise HTTPException(404) from error
        return Response(content, media_type="image/webp", headers=FOREVER)

    fonts = StaticFiles(directory=Path(__file__).parent / "fonts")
    return [
        Route("/dataloupe/sprites/{key}/{split}/{sheet:int}.webp", sprite),
        Mount("/dataloupe/fonts", app=fonts),
    ]


@lru_cache(maxsize=8)
def _fingerprint(path: Path, changed: int, size: int) -> str:
    """Of the data, read once for each state of dataset.json."""
    return str(store.read_json(path)["fingerprint"])
