"""Entry point of the dashboard: style, navigation and the header above every page."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from dashboard.location import announce, read_location
from dashboard.parts.layout.header import header, logo_style, problems
from dashboard.parts.layout.messages import notice
from dashboard.parts.layout.sign_in import sign_in
from dashboard.read.studies import open_study
from dashboard.workspaces import PAGES, workspace_of
from engine.store.errors import DataloupeError

HERE = Path(__file__).parent
SHEETS = (
    "tokens",
    "frame",
    "page",
    "figures",
    "charts",
    "verdicts",
    "texts",
    "curation",
    "findings",
    "palette",
)

st.set_page_config(page_title="Dataloupe", page_icon=HERE / "icon.svg", layout="wide")
for sheet in SHEETS:
    st.html(HERE / "style" / f"{sheet}.css")
st.html(logo_style(HERE / "logo.svg"))
page = st.navigation(
    [
        st.Page(one.file, title=one.title, url_path=one.address, default=not one.address)
        for one in PAGES
    ],
    position="hidden",
)
workspace, entry = workspace_of(page.url_path)

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
