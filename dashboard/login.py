"""Signing in, for a server that others can reach: by OpenID Connect, where it is configured.

`[auth]` in `.streamlit/secrets.toml` (of the folder the server is started in, or the home folder)
names the provider, as Streamlit's `st.login` wants it. Whom the provider lets in may see the study,
unless `[dataloupe]` names them one by one:

    [dataloupe]
    allow = ["ada@example.org", "@example.com"]

Without `[auth]` there is no signing in, and the server should listen on this machine only.
"""

from __future__ import annotations

import hashlib
import hmac
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from engine.store.errors import DataloupeError


@dataclass(frozen=True)
class Login:
    """How one signs in.

    Attributes:
        providers: Names of the providers; empty for a single one without a name.
        allow: Addresses, or `@domains`, that may see the study; empty for all who can sign in.
        secret: What signs the cookies.
    """

    providers: tuple[str, ...]
    allow: tuple[str, ...]
    secret: str

    def allows(self, user: dict[str, Any]) -> bool:
        """Whether this user may see the study. An address counts unless it is not verified."""
        if not self.allow:
            return True
        address = str(user.get("email", "")).casefold()
        if user.get("email_verified", True) in (False, "false") or "@" not in address:
            return False
        domain = address[address.rindex("@") :]
        return any(one.casefold() in (address, domain) for one in self.allow)


def secrets_files() -> list[Path]:
    """Where secrets are looked for; what a later file says goes before an earlier one."""
    return [folder / ".streamlit" / "secrets.toml" for folder in (Path.home(), Path.cwd())]


@cache
def configured() -> Login | None:
    """What the secrets say, read once; None where they ask for no login.

    Raises:
        DataloupeError: They are there and cannot be read, or what they ask for is not installed: no
            study is shown to everyone because of a mistake in a file.
    """
    secrets: dict[str, Any] = {}
    found = [file for file in secrets_files() if file.exists()]
    for file in found:
        try:
            secrets |= tomllib.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataloupeError(f"{file} cannot be read: {error}") from error
    if "auth" not in secrets:
        return None
    if find_spec("authlib") is None:
        raise DataloupeError(
            f"{found[-1]} asks for a login, which needs `pip install dataloupe[login]`."
        )
    try:
        auth, allow = dict(secrets["auth"]), secrets.get("dataloupe", {}).get("allow", [])
        secret = str(auth["cookie_secret"])
        if not isinstance(allow, list) or not all(isinstance(one, str) for one in allow):
            raise TypeError
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataloupeError(
            f"{found[-1]}: [auth] needs a cookie_secret, and allow in [dataloupe] is a list of "
            "texts (docs/serving.md)."
        ) from error
    providers = tuple(name for name, value in auth.items() if isinstance(value, dict))
    return Login(providers, tuple(allow), secret)


def picture_key(fingerprint: str) -> str:
    """What stands for the data in the address of their pictures.

    Their fingerprint, or where one must sign in something that only pages know: a browser sends
    requests for pictures past the page that asks who it is.
    """
    login = configured()
    if login is None:
        return fingerprint
    return hmac.new(login.secret.encode(), fingerprint.encode(), hashlib.sha256).hexdigest()[:32]
