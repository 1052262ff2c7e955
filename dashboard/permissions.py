"""Who looks at a page, and what they may do.

*Viewers* look, and ask live queries. *Editors* also start jobs, write notes, tags, slices and sets,
and upload models; they can cancel and delete what is their own. *Owners* can cancel and delete
everything, and read the audit log. With a login, roles are configured (`dashboard.login`); without
one, everyone has the role that the server was started with.

Controls are disabled with `gate`. What they do goes through `dashboard.writes`, which checks again:
a browser can press a button that no page shows.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Literal

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

from dashboard.login import ROLES, Role, address_of, configured
from engine.store.errors import DataloupeError

ROLE_VARIABLE = "DATALOUPE_ROLE"
"""Environment variable with the role of everyone, on a server without a login."""

Action = Literal["run", "write", "upload", "change_any", "audit"]
WORDS: dict[Action, tuple[str, Role]] = {
    "run": ("starting jobs", "editor"),
    "write": ("writing notes, tags, slices and sets", "editor"),
    "upload": ("uploading models", "editor"),
    "change_any": ("changing what others made or started", "owner"),
    "audit": ("reading the audit log", "owner"),
}
"""What it is, and the role that it takes."""


class NotAllowed(DataloupeError):
    """The person may not do this."""


@dataclass(frozen=True)
class Person:
    """Who looks at a page.

    Attributes:
        key: Tells people apart: a verified e-mail address, or the provider's id; empty without a
            login.
        name: To show; empty without a login.
    """

    key: str
    name: str
    role: Role


def person() -> Person:
    """The person whose page this is."""
    login = configured()
    if login is None:
        role = os.environ.get(ROLE_VARIABLE, "owner")
        return Person("", "", role if role in ROLES else "viewer")
    user = st.user.to_dict()
    if not user.get("is_logged_in") or not login.allows(user):
        return Person("", "", "viewer")
    key = address_of(user) or f"{user.get('iss', '')}#{user.get('sub', '')}"
    return Person(key, str(user.get("name") or user.get("email") or key), login.role_of(user))


def session() -> str:
    """Tells apart those who share the server: the person or, without a login, the session."""
    context = get_script_run_ctx()
    return person().key or (context.session_id if context is not None else "")


def why_not(action: Action, by: str | None = None) -> str | None:
    """The reason why this person may not do this; None if they may.

    Args:
        by: The key of who made what is changed; None if it is something new. Without a login,
            nothing is anyone's own.
    """
    who, login = person(), configured()
    words, role = WORDS[action]
    enough = ROLES.index(who.role) >= ROLES.index(role)
    granted = login is not None and action in login.viewers_may
    if not enough and not granted:
        return f"Your role here is {who.role}; {words} takes an {role}."
    if by is not None and who.role != "owner" and (not who.key or by != who.key):
        return f"Your role here is {who.role}; {WORDS['change_any'][0]} takes an owner."
    return None


def gate(
    action: Action, by: str | None = None, help: str | None = None, disabled: bool = False
) -> dict[str, Any]:
    """Arguments of a control: disabled, with the reason as its help, if this is not allowed."""
    reason = why_not(action, by)
    return {"disabled": disabled or reason is not None, "help": reason or help}
