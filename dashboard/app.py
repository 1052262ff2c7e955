"""Entry point of the dashboard: navigation and the header above every page."""

from __future__ import annotations

import streamlit as st
from streamlit.runtime.scriptrunner import StopException

from dashboard.late_events import forgetting_controls_that_leave
from dashboard.location import announce, read_location
from dashboard.parts.layout.header import header, problems
from dashboard.parts.layout.messages import notice
from dashboard.parts.layout.sign_in import sign_in
from dashboard.read.studies import open_study
from dashboard.workspaces import PAGES, workspace_of
from engine.store.errors import DataloupeError

page = st.navigation(
    [
        st.Page(one.file, title=one.title, url_path=one.address, default=not one.address)
        for one in PAGES
    ],
    position="hidden",
)
workspace, entry = workspace_of(page.url_path)
# The tab, and the browser's history; its icon is in the frame.
st.set_page_config(page_title=f"{entry.title} · Dataloupe", layout="wide")

with forgetting_controls_that_leave():
    try:
        sign_in()
        study = open_study()
        location = read_location(study)
        announce(location)
        header(study, location, workspace, entry)
        problems(location)
        page.run()
    except DataloupeError as error:
        notice("This study cannot be shown as it is", str(error), kind="error")
    except StopException:
        pass  # the page has no more to show
