"""The signed-in user, shown above every page; without one, the page stops here."""

from __future__ import annotations

import streamlit as st

from dashboard.login import configured
from dashboard.parts.layout.messages import notice


def sign_in() -> None:
    """Show the signed-in user; without one, offer to sign in and stop the page."""
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
    name = str(user.get("name") or user.get("email") or "someone")
    if not login.allows(user):
        notice("This study is not shared with you", f"You are signed in as {name}.", kind="error")
        with st.container(horizontal=True, horizontal_alignment="center"):
            st.button("Sign out", on_click=st.logout)
        st.stop()
    with st.popover(name, icon=":material/person:", width="content"):
        st.button("Sign out", on_click=st.logout)
