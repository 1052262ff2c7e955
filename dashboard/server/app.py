"""Streamlit's server with our routes, and the guard in front of all of them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import streamlit as st
from starlette.middleware import Middleware
from streamlit import config
from streamlit.runtime import Runtime, RuntimeConfig
from streamlit.runtime.memory_media_file_storage import MemoryMediaFileStorage
from streamlit.runtime.memory_session_storage import MemorySessionStorage
from streamlit.web.cache_storage_manager_config import create_default_cache_storage_manager

from dashboard import login
from dashboard.parts.controls.uploader import largest_bytes
from dashboard.routes import routes
from dashboard.server.guard import Guard
from dashboard.server.headers import security_headers
from dashboard.server.hosts import LOOPBACK, known_hosts
from dashboard.server.uploaded_files import UploadedFiles

UPLOADER = "file_uploader_state_value"
"""What Streamlit calls the value of a file uploader."""
SERVER_SHARE = 2
"""Sessions that may send as much as one may at the same time."""


@dataclass(frozen=True)
class Limits:
    """Most bytes of files that browsers sent.

    Attributes:
        session: Of one session together.
        server: Of all sessions together.
    """

    session: int
    server: int

    @classmethod
    def for_quota(cls, mebibytes: int) -> Limits:
        """One session may send what all uploads of a study may keep; all together twice that."""
        return cls(mebibytes * 2**20, SERVER_SHARE * mebibytes * 2**20)


class App(st.App):
    """The server of a study."""

    def __init__(
        self,
        script: Path,
        study: Path,
        *,
        address: str,
        hosts: Sequence[str],
        limits: Limits,
        on_script_error: Callable[[Exception], bool | None] | None = None,
    ) -> None:
        """Put the guard in front of Streamlit's routes and those of the study.

        Args:
            script: Entry point of the pages.
            address: Where the server listens.
            hosts: Further names of it.
        """
        known = login.configured()
        guard = Middleware(
            Guard,
            login=known,
            hosts=known_hosts(address, hosts),
            local=address in LOOPBACK,
            headers=security_headers(
                login.serving().frame_ancestors, known.provider_origins if known else ()
            ),
            files=self.files,
        )
        self._limits = limits
        self._files: UploadedFiles | None = None
        super().__init__(
            script,
            routes=routes(study),
            middleware=[guard],
            on_script_error=on_script_error,
            lifespan=self._remove_files_at_the_end,
        )

    @asynccontextmanager
    async def _remove_files_at_the_end(self, _: st.App) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            self.files().close()

    def files(self) -> UploadedFiles:
        """The files that browsers sent."""
        assert self._files is not None  # created with the runtime, before any request
        return self._files

    def _create_runtime(self) -> Runtime:
        """Streamlit's runtime, with files on disk."""
        self._files = UploadedFiles(
            "/_stcore/upload_file", self._waiting, self._limits.session, self._limits.server
        )
        return Runtime(
            RuntimeConfig(
                script_path=str(self._resolve_script_path()),
                media_file_storage=MemoryMediaFileStorage("/media"),
                uploaded_file_manager=self._files,
                cache_storage_manager=create_default_cache_storage_manager(),
                session_storage=MemorySessionStorage(
                    ttl_seconds=config.get_option("server.disconnectedSessionTTL")
                ),
                on_script_error=self._on_script_error,
            )
        )

    def _waiting(self, session_id: str) -> int:
        """The largest file that an uploader on a session's page takes; 0 without one."""
        session = self._runtime.get_app_session(session_id) if self._runtime else None
        if session is None:
            return 0
        state: Any = session.session_state
        metadata = state._new_widget_state.widget_metadata
        keys = dict(state._key_id_mapper.id_key_mapping)
        # States of widgets that left the page are removed by every run; their metadata by whole
        # ones (dashboard.late_events).
        shown = {*list(state._new_widget_state.states), *list(state._old_state)}
        found = [
            largest_bytes(keys[name])
            for name in shown
            if name in metadata and name in keys and metadata[name].value_type == UPLOADER
        ]
        return max(found, default=0)
