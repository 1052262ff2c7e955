"""Training set: all training examples in a gallery, filtered and sorted."""

from __future__ import annotations

import streamlit as st

from dashboard.location import read_location
from dashboard.parts.layout.build_progress import building
from dashboard.parts.layout.page_title import title
from dashboard.read.studies import examples, open_study, what_it_shows

study = open_study()
location = read_location(study)
algorithm = location.algorithm
kind = f"{what_it_shows(study)}s"

if not study.has_data:
    building(f"The training {kind} appear here first", lambda study: study.has_data, algorithm)
    st.stop()

found = examples(study, "train", algorithm)
st.html(title(f"Training {kind}", f"{len(found.table):,}"))
