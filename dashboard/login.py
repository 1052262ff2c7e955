"""Sign-in with OpenID Connect, for a server that others can reach.

`[auth]` in `.streamlit/secrets.toml` (in the folder where the server starts, or the home folder)
names the provider, in the format of Streamlit's `st.login`. Everyone who can sign in may see the
study, unless `[dataloupe]` lists who may:

    [dataloupe]
    allow = ["ada@example.org", "@example.com"]
    default_role = "viewer"
    viewers_may = ["write"]

    [dataloupe.roles]
    "ada@example.org" = "owner"

What each role may do is in `dashboard.permissions`. `hosts` lists further names of the server, and
`frame_ancestors` the sites that may show a page in a frame; both also count without a login.

Without `[auth]` there is no sign-in, and the server should listen on this machine only.
"""

from __future__ import annotations

import hashlib
import hmac
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from engine.store.errors import DataloupeError

Role = Literal["viewer", "editor", "owner"]
ROLES: tuple[Role, ...] = get_args(Role)
"""From the one that may least."""
GRANTS = ("run", "write", "upload")
"""What `viewers_may` can list."""


@dataclass(frozen=True)
class Login:
    """The configured login.

    Attributes:
        providers: Names of the providers; empty for a single one without a name.
        allow: Addresses, or `@domains`, that may see the study; empty for all who can sign in.
        secret: Key that signs the cookies.
        roles: Address, or `@domain` → role.
        default_role: Role of everyone else.
        viewers_may: What viewers may do beside looking.
        redirect_uri: Where the provider sends people back to: the server's public address.
        metadata_urls: Where the providers describe themselves.
    """

    providers: tuple[str, ...]
    allow: tuple[str, ...]
    secret: str
    roles: Mapping[str, Role] = field(default_factory=dict)
    default_role: Role = "viewer"
    viewers_may: tuple[str, ...] = ()
    redirect_uri: str = ""
    metadata_urls: tuple[str, ...] = ()

    def allows(self, user: dict[str, Any]) -> bool:
        """Whether this user may see the study. Addresses marked as unverified do not count."""
        if not self.allow:
            return True
        address = address_of(user)
        return any(one.casefold() in _names(address) for one in self.allow) if address else False

    def role_of(self, user: dict[str, Any]) -> Role:
        """The user's role: of the address, else of its domain, else the default."""
        roles = {name.casefold(): role for name, role in self.roles.items()}
        address = address_of(user)
        found = [roles[name] for name in _names(address) if name in roles] if address else []
        return found[0] if found else self.default_role

    @property
    def public_hosts(self) -> tuple[str, ...]:
        """The server's public name."""
        host = urlsplit(self.redirect_uri).hostname
        return (host,) if host else ()

    @property
    def provider_origins(self) -> tuple[str, ...]:
        """Where signing out may lead to."""
        parts = [urlsplit(url) for url in self.metadata_urls]
        return tuple(dict.fromkeys(f"{one.scheme}://{one.netloc}" for one in parts if one.netloc))


def address_of(user: dict[str, Any]) -> str:
    """The user's verified e-mail address; empty without one."""
    address = str(user.get("email") or "").casefold()
    if user.get("email_verified", True) in (False, "false") or "@" not in address:
        return ""
    return address


def _names(address: str) -> tuple[str, str]:
    """An address and its domain, as the lists name them."""
    return address, address[address.rindex("@") :]


@dataclass(frozen=True)
class Serving:
    """Settings of a server, with or without a login.

    Attributes:
        hosts: Names by which it is reached, beside its address.
        frame_ancestors: Origins of pages that may show a page in a frame.
    """

    hosts: tuple[str, ...] = ()
    frame_ancestors: tuple[str, ...] = ()


def secrets_files() -> list[Path]:
    """Where secrets are read from; a later file overrides an earlier one."""
    return [folder / ".streamlit" / "secrets.toml" for folder in (Path.home(), Path.cwd())]


@cache
def configured() -> Login | None:
    """The login in the secrets, read once; None if they configure none.

    Raises:
        DataloupeError: The secrets cannot be read, or a package they need is not installed. A
            mistake in a file must not open the study to everyone.
    """
    found, secrets = _secrets()
    if "auth" not in secrets:
        return None
    if find_spec("authlib") is None:
        raise DataloupeError(
            f"{found[-1]} configures a login, which needs `pip install dataloupe[login]`."
        )
    try:
        auth, ours = dict(secrets["auth"]), dict(secrets.get("dataloupe", {}))
        secret = str(auth["cookie_secret"])
        roles = dict(ours.get("roles", {}))
        default = ours.get("default_role", "viewer")
        if not {*roles.values(), default} <= {*ROLES}:
            raise TypeError
        allow, may = _strings(ours, "allow"), _strings(ours, "viewers_may")
        if not {*may} <= {*GRANTS}:
            raise TypeError
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataloupeError(
            f"{found[-1]}: [auth] needs a cookie_secret; in [dataloupe], allow must be a list of "
            f"strings, viewers_may a list of {', '.join(GRANTS)}, and default_role and all of "
            f"[dataloupe.roles] one of {', '.join(ROLES)} (docs/serving.md)."
        ) from error
    named = {name: value for name, value in auth.items() if isinstance(value, dict)}
    urls = [str(one.get("server_metadata_url", "")) for one in (auth, *named.values())]
    return Login(
        tuple(named),
        allow,
        secret,
        roles,
        default,
        may,
        str(auth.get("redirect_uri", "")),
        tuple(filter(None, urls)),
    )


@cache
def serving() -> Serving:
    """Settings in the secrets that do not need a login. Raises DataloupeError as `configured`."""
    found, secrets = _secrets()
    try:
        ours = dict(secrets.get("dataloupe", {}))
        return Serving(_strings(ours, "hosts"), _strings(ours, "frame_ancestors"))
    except (TypeError, ValueError) as error:
        raise DataloupeError(
            f"{found[-1]}: hosts and frame_ancestors in [dataloupe] must be lists of strings "
            "(docs/serving.md)."
        ) from error


def _secrets() -> tuple[list[Path], dict[str, Any]]:
    """The files of secrets that exist, and what they hold."""
    secrets: dict[str, Any] = {}
    found = [file for file in secrets_files() if file.exists()]
    for file in found:
        try:
            secrets |= tomllib.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataloupeError(f"{file} cannot be read: {error}") from error
    return found, secrets


def _strings(settings: dict[str, Any], name: str) -> tuple[str, ...]:
    found = settings.get(name, [])
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise TypeError
    return tuple(found)


def picture_key(fingerprint: str) -> str:
    """The key of the data in the URLs of its pictures.

    It is the fingerprint or, with a login, a secret that only pages know: requests for pictures
    bypass the page that checks the login.
    """
    login = configured()
    if login is None:
        return fingerprint
    return hmac.new(login.secret.encode(), fingerprint.encode(), hashlib.sha256).hexdigest()[:32]
