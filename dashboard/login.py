"""Sign-in with OpenID Connect, for a server that others can reach.

`[auth]` in `.streamlit/secrets.toml` (in the folder where the server starts, or the home folder)
names the provider, in the format of Streamlit's `st.login`. Everyone who can sign in may see the
study, unless `[dataloupe]` lists who may:

    [dataloupe]
    allow = ["ada@example.org", "@example.com"]

Without `[auth]` there is no sign-in, and the server should listen on this machine only.
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
    """The configured login.

    Attributes:
        providers: Names of the providers; empty for a single one without a name.
        allow: Addresses, or `@domains`, that may see the study; empty for all who can sign in.
        secret: Key that signs the cookies.
    """

    providers: tuple[str, ...]
    allow: tuple[str, ...]
    secret: str

    def allows(self, user: dict[str, Any]) -> bool:
        """Whether this user may see the study. Addresses marked as unverified do not count."""
        if not self.allow:
            return True
        address = str(user.get("email", "")).casefold()
        if user.get("email_verified", True) in (False, "false") or "@" not in address:
            return False
        domain = address[address.rindex("@") :]
        return any(one.casefold() in (address, domain) for one in self.allow)


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
            f"{found[-1]} configures a login, which needs `pip install dataloupe[login]`."
        )
    try:
        auth, allow = dict(secrets["auth"]), secrets.get("dataloupe", {}).get("allow", [])
        secret = str(auth["cookie_secret"])
        if not isinstance(allow, list) or not all(isinstance(one, str) for one in allow):
            raise TypeError
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataloupeError(
            f"{found[-1]}: [auth] needs a cookie_secret, and allow in [dataloupe] must be a "
            "list of strings (docs/serving.md)."
        ) from error
    providers = tuple(name for name, value in auth.items() if isinstance(value, dict))
    return Login(providers, tuple(allow), secret)


def picture_key(fingerprint: str) -> str:
    """The key of the data in the URLs of its pictures.

    It is the fingerprint or, with a login, a secret that only pages know: requests for pictures
    bypass the page that checks the login.
    """
    login = configured()
    if login is None:
        return fingerprint
    return hmac.new(login.secret.encode(), fingerprint.encode(), hashlib.sha256).hexdigest()[:32]
