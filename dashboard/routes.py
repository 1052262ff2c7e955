"""What the server serves beside the pages: sprite sheets and the fonts.

A sheet's address holds a key of the data, so a browser may keep it for ever.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from dashboard.login import picture_key
from engine.errors import DataloupeError
from engine.layout import Split
from engine.study import Study

FOREVER = {
    "Cache-Control": "public, max-age=31536000, immutable",
    "X-Content-Type-Options": "nosniff",
}


def routes(root: Path) -> list[BaseRoute]:
    """The routes for the study in `root`."""

    def sprite(request: Request) -> Response:
        split, sheet = request.path_params["split"], request.path_params["sheet"]
        if split not in ("train", "test"):
            raise HTTPException(404)
        try:
            study = Study.open(root)
            path = study.sprite_file(cast(Split, split), sheet)
            current = picture_key(study.dataset.fingerprint)
        except DataloupeError as error:
            raise HTTPException(404) from error
        if request.path_params["key"] != current or not path.is_file():
            raise HTTPException(404)
        return FileResponse(path, media_type="image/webp", headers=FOREVER)

    fonts = StaticFiles(directory=Path(__file__).parent / "fonts")
    return [
        Route("/dataloupe/sprites/{key}/{split}/{sheet:int}.webp", sprite),
        Mount("/dataloupe/fonts", app=fonts),
    ]
