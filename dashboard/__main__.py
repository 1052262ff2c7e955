"""The server: `python -m dashboard STUDY --port 8501`. `dataloupe serve` starts it."""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from dashboard import login
from dashboard.parts.layout.messages import notice
from dashboard.permissions import ROLE_VARIABLE
from dashboard.read.live_queries import MEGABYTES
from dashboard.read.studies import STUDY_VARIABLE
from dashboard.server.app import App, Limits
from dashboard.server.hosts import LOOPBACK
from engine.store.errors import DataloupeError
from engine.study.reader import StudyReader

HERE = Path(__file__).parent
GRACE_SECONDS = 3.0
"""How long open pages may delay the end of the server."""


def main() -> None:
    """Serve one study until it is stopped, or until the parent process ends."""
    parser = argparse.ArgumentParser(prog="python -m dashboard")
    parser.add_argument("study", type=Path)
    parser.add_argument("--address", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8501)
    parser.add_argument("--role", choices=login.ROLES)
    parser.add_argument("--host", action="append", default=[])
    parser.add_argument(
        "--end-with-input", action="store_true", help="end when the standard input closes"
    )
    options = parser.parse_args()
    try:
        role = role_without_login(options.address, options.role)
        hosts = hosts_of(options.host)
    except DataloupeError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    os.environ[STUDY_VARIABLE] = str(options.study.resolve())
    os.environ[ROLE_VARIABLE] = role
    if options.end_with_input:
        threading.Thread(target=_end_with_input, daemon=True).start()
    gc.freeze()  # imported modules stay, and scanning them takes longer than rendering a page
    megabytes = largest_upload(options.study)
    app = App(
        HERE / "app.py",
        options.study.resolve(),
        address=options.address,
        hosts=hosts,
        limits=Limits.for_quota(upload_quota(options.study)),
        on_script_error=_on_error,
    )
    app.run(config=server_config(options.address, options.port, megabytes, hosts))


def role_without_login(address: str, asked: str | None) -> str:
    """The role of everyone on a server without a login, and a warning if that is a risk.

    On this machine only, everyone is its owner; others look, unless a role is asked for.

    Raises:
        DataloupeError: The login is configured incorrectly, or a role is asked for beside it.
    """
    configured = login.configured()
    if configured is not None:
        if asked is not None:
            raise DataloupeError("With a login, roles come from secrets.toml: leave out --role.")
        if "owner" not in (configured.default_role, *configured.roles.values()):
            print(
                "Nobody is an owner: name one under [dataloupe.roles] in secrets.toml "
                "(docs/serving.md).",
                file=sys.stderr,
            )
        return "viewer"
    role = asked or ("owner" if address in LOOPBACK else "viewer")
    if address not in LOOPBACK:
        print(
            f"Anyone who can reach {address} can see this study as its {role}: no login is "
            "configured (docs/serving.md).",
            file=sys.stderr,
        )
    return role


def hosts_of(asked: Sequence[str]) -> tuple[str, ...]:
    """Names of the server: asked for, and configured. Raises DataloupeError as the login."""
    configured = login.configured()
    public = configured.public_hosts if configured is not None else ()
    return (*asked, *public, *login.serving().hosts)


def upload_quota(root: Path) -> int:
    """The most that somebody may send together, in MiB: what the study may keep of uploads."""
    with contextlib.suppress(DataloupeError):  # the pages show the error
        uploads = StudyReader.open(root).spec.uploads
        return max(largest_upload(root), uploads.quota_mib)
    return 2 * MEGABYTES


def largest_upload(root: Path) -> int:
    """The largest file that a page accepts, in MiB: a model (limit in study.toml) or a picture."""
    with contextlib.suppress(DataloupeError):  # the pages show the error
        return max(MEGABYTES, StudyReader.open(root).spec.uploads.max_mib)
    return MEGABYTES


def server_config(
    address: str, port: int, megabytes: int = MEGABYTES, hosts: Sequence[str] = ()
) -> dict[str, object]:
    """Streamlit's options: theme, address, cross-site protection, no telemetry, viewer toolbar.

    They do not depend on the working directory, so an installed wheel looks the same.
    """
    return {
        "theme.base": str(HERE / "theme.toml"),
        "server.address": address,
        "server.port": port,
        "server.headless": True,
        "server.fileWatcherType": "none",
        "server.enableXsrfProtection": True,
        "server.enableCORS": True,
        # A page of a different site must not reach a local server through its own domain name.
        "server.allowedHosts": [*LOOPBACK, *hosts] if address in LOOPBACK else ["*"],
        "secrets.files": [str(path) for path in login.secrets_files()],
        "server.maxUploadSize": megabytes,
        "browser.gatherUsageStats": False,
        "client.toolbarMode": "viewer",
        "client.showErrorDetails": "none",
        # No page of another site controls ours.
        "client.allowedOrigins": [],
        # Where Back or Forward interrupts several runs, a browser forgets parts of a page that the
        # server takes for kept, and shows an error instead of the page: send all of them.
        "global.minCachedMessageSize": 2**30,
        "logger.level": "warning",
        # A full garbage collection after every run takes longer than the run itself.
        "runner.postScriptGC": False,
        # No page uses magic, and looking for it takes half of the time to compile a page.
        "runner.magicEnabled": False,
    }


def _on_error(error: Exception) -> bool:
    """Show a notice for an unexpected error; the traceback goes to the terminal."""
    traceback.print_exception(error)
    notice(
        "This page could not be shown",
        "An unexpected error occurred; details are in the terminal that runs Dataloupe. "
        "Reload the page to try again.",
        kind="error",
    )
    return True


def _end_with_input() -> None:
    """End when standard input closes: the parent process holds its other end."""
    # Not `sys.stdin`: this thread would still hold its lock when the server ends by itself.
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os._exit(0)


if __name__ == "__main__":
    main()
