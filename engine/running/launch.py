"""Start the dashboard's server as a separate process. The engine never imports the dashboard."""

from __future__ import annotations

import contextlib
import http
import http.client
import os
import secrets
import socket
import subprocess
import sys
import time
import webbrowser
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NoReturn

from engine.store.errors import DataloupeError

FIRST_PORT = 8501
PORTS_TO_TRY = 100
STARTUP_SECONDS = 60.0
INSTALL_MCP = "pip install 'dataloupe[mcp]'"
TOKEN_VARIABLE = "DATALOUPE_SERVER"
"""Holds a random token that identifies the server: a different one may have taken its port."""

_children: list[subprocess.Popen[bytes]] = []
"""Servers of this process. Each exits when its standard input closes, so none outlives us."""


def serve(
    root: str | Path,
    address: str = "127.0.0.1",
    port: int | None = None,
    open_browser: bool = True,
    role: str | None = None,
    hosts: Sequence[str] = (),
) -> int:
    """Serve a study's dashboard until Ctrl-C; return the exit code.

    Args:
        role: What everyone may do on a server without a login; None: owner on this machine only,
            else viewer.
        hosts: Further names of the server.

    Raises:
        DataloupeError: The port is in use, the address does not belong to this machine, or the
            server does not start.
    """
    more = [*(["--role", role] if role else []), *(f"--host={host}" for host in hosts)]
    child, url = _start(Path(root), address, port, more)
    try:
        print(f"The dashboard of {root} is running at {url}. Press Ctrl-C to stop it.", flush=True)
        if open_browser:
            webbrowser.open(url)
        return child.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        _stop(child)


def launch(
    root: str | Path,
    port: int | None = None,
    open_browser: bool = True,
    address: str = "127.0.0.1",
) -> str:
    """Serve a study's dashboard in the background and return its URL once it responds.

    The server exits with this process, however that ends. Raises the same as `serve`.
    """
    child, url = _start(Path(root), address, port)
    _children.append(child)
    if open_browser:
        webbrowser.open(url)
    return url


def _start(
    root: Path, address: str, port: int | None, more: Sequence[str] = ()
) -> tuple[subprocess.Popen[bytes], str]:
    if port is not None:
        return _start_at(root, address, _checked_port(address, port), more)
    while True:
        free = _free_port(address)
        try:
            return _start_at(root, address, free, more)
        except DataloupeError:
            if _is_free(address, free):
                raise
            # Another server took the port first: try the next one.


def become_mcp_server(root: str | Path) -> NoReturn:
    """Replace this process by the server that an assistant asks (`dashboard.api.mcp_server`).

    Raises:
        DataloupeError: The package that speaks the protocol is missing or too old.
    """
    try:
        known = version("mcp")
    except PackageNotFoundError:
        raise DataloupeError(f"mcp needs the package of the protocol: {INSTALL_MCP}.") from None
    if int(known.partition(".")[0]) < 2:
        raise DataloupeError(f"mcp {known} is too old, 2.0 or newer is needed: {INSTALL_MCP}.")
    command, environment = _command("dashboard.api.mcp_server", Path(root))
    sys.stdout.flush()
    os.execve(command[0], command, environment)


def _command(module: str, root: Path) -> tuple[list[str], dict[str, str]]:
    """What runs a module of ours on a study: its command line and environment."""
    # -P: the current folder may be the study's, with modules that shadow installed ones.
    command = [sys.executable, "-P", "-m", module, str(root.resolve())]
    modules = [str(Path(path).resolve()) for path in sys.path if path]
    return command, {**os.environ, "PYTHONPATH": os.pathsep.join(modules)}


def _start_at(
    root: Path, address: str, port: int, more: Sequence[str]
) -> tuple[subprocess.Popen[bytes], str]:
    token = secrets.token_hex(8)
    command, environment = _command("dashboard", root)
    child = subprocess.Popen(
        [*command, "--address", address, "--port", str(port), "--end-with-input", *more],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env={**environment, TOKEN_VARIABLE: token},
        start_new_session=True,  # Ctrl-C reaches this process only, which then stops the server
    )
    try:
        _wait_until_ready(child, address, port, token)
    except BaseException:
        _stop(child)
        raise
    host = _reachable(address)
    return child, f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _stop(child: subprocess.Popen[bytes]) -> None:
    if child.stdin is not None:
        child.stdin.close()
    child.terminate()
    try:
        child.wait(timeout=5)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


# --- ports -------------------------------------------------------------------------------------


def _free_port(address: str) -> int:
    for port in range(FIRST_PORT, FIRST_PORT + PORTS_TO_TRY):
        if _is_free(address, port):
            return port
    last = FIRST_PORT + PORTS_TO_TRY - 1
    raise DataloupeError(
        f"All ports from {FIRST_PORT} to {last} at {address} are in use. Stop a server, or choose "
        "a port with --port."
    )


def _is_free(address: str, port: int) -> bool:
    with contextlib.suppress(DataloupeError):
        return _checked_port(address, port) == port
    return False


def _checked_port(address: str, port: int) -> int:
    """Return the port if a server can listen on it. Raises DataloupeError if not."""
    if not 1 <= port <= 65535:
        raise DataloupeError(f"Port {port} does not exist: ports are 1 to 65535.")
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
    except socket.gaierror as error:
        raise DataloupeError(
            f"{address!r} is not an address of this machine. Choose a different one with --address."
        ) from error
    except PermissionError as error:
        raise DataloupeError(
            f"You do not have permission to use port {port}. Choose one above 1023 with --port."
        ) from error
    except OSError as error:
        raise DataloupeError(
            f"Port {port} at {address} is in use ({error.strerror}). Choose a different one with "
            "--port, or omit --port to use the first free one."
        ) from error
    return port


# --- health ------------------------------------------------------------------------------------


def _reachable(address: str) -> str:
    """The address to open in a browser for the address that the server listens on."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)


def _wait_until_ready(child: subprocess.Popen[bytes], address: str, port: int, token: str) -> None:
    deadline = time.monotonic() + STARTUP_SECONDS
    while time.monotonic() < deadline:
        if child.poll() is not None:
            raise DataloupeError(
                f"The dashboard's server failed to start (exit code {child.returncode}). See its "
                "output above for the reason."
            )
        if _responds(_reachable(address), port, token):
            return
        time.sleep(0.05)
    raise DataloupeError(
        f"The dashboard did not respond within {STARTUP_SECONDS:.0f} seconds. Try again, perhaps "
        "when the machine is less busy."
    )


def _responds(host: str, port: int, token: str) -> bool:
    """Whether the server with exactly this token responds at this address."""
    connection = http.client.HTTPConnection(host, port, timeout=2)
    try:
        connection.request("GET", f"/dataloupe/server/{token}")
        return connection.getresponse().status == http.HTTPStatus.NO_CONTENT
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
