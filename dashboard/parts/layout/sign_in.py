"""The signed-in user, shown in the header of every page; without one, the page stops here."""

from __future__ import annotations

from html import escape
from typing import Any

import streamlit as st
from streamlit.web.server.starlette.starlette_server_config import XSRF_COOKIE_NAME

from dashboard.login import configured
from dashboard.parts.layout.messages import notice

SIGN_OUT = "/auth/logout"


def sign_in() -> None:
    """Offer to sign in, and stop the page, unless a user is signed in who may see the study."""
    login = configured()
    if login is None:
        return
    user = st.user.to_dict()
    if not user.get("is_logged_in"):
        notice("Sign in", "Sign in to see this study.")
        with st.container(horizontal=True, horizontal_alignment="center"):
            for provider in login.providers or (None,):
                words = "Sign in" if provider is None else f"Sign in with {provider}"
                st.button(words, type="primary", on_click=st.login, args=(provider,))
        st.stop()
    if not login.allows(user):
        name = _name(user)
        notice("This study is not shared with you", f"You are signed in as {name}.", kind="error")
        with st.container(horizontal=True, horizontal_alignment="center"):
            sign_out()
        st.stop()


def account() -> None:
    """Show the signed-in user, with the role and a button to sign out."""
    login = configured()
    if login is None:
        return
    user = st.user.to_dict()
    with st.popover(_name(user), icon=":material/person:", width="content"):
        st.html(f'<p class="dl-aside">Your role here: {login.role_of(user)}.</p>')
        sign_out()


def _name(user: dict[str, Any]) -> str:
    return str(user.get("name") or user.get("email") or "someone")


def sign_out() -> None:
    """A button that signs out by POST, so that no link of another site can do it."""
    token = escape(st.context.cookies.get(XSRF_COOKIE_NAME, ""))
    st.html(
        f'<form method="post" action="{SIGN_OUT}"><input type="hidden" name="token" '
        f'value="{token}"><button class="dl-button" type="submit">Sign out</button></form>'
    )
