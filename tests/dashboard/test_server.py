"""The server: local by default, and without torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from dashboard.__main__ import server_config
from dashboard.read.studies import STUDY_VARIABLE
from engine.api import Study
from tests.conftest import APP


def test_pages_and_their_twins_do_not_import_torch(complete_study: Study) -> None:
    script = f"""
import os, sys
os.environ[{STUDY_VARIABLE!r}] = {str(complete_study.root)!r}
from streamlit.testing.v1 import AppTest
app = AppTest.from_file({str(APP)!r}, default_timeout=60)
app.query_params["test"] = "test-0"
app.run()
app.query_params["train"] = "train-0"
for view, components in (("explore", 1), ("explain", 2), ("training", 3)):
    app.switch_page(f"views/{{view}}.py").run()
    assert not app.exception and len(app.get("bidi_component")) == components
import dashboard.__main__, dashboard.routes
from dashboard.api.reading import BY_NAME, answer_of
root = __import__("pathlib").Path({str(complete_study.root)!r})
asked = {{"explain": {{"test": "#1", "show": "both"}}, "training": {{"train": "#1"}}}}
asked |= {{"what-if": {{"remove": "#1"}}}}
for name, view in BY_NAME.items():
    if name not in ("quality", "compare"):
        answer_of(root, view, asked.get(name, {{}})).to_json()
assert "torch" not in sys.modules, "torch was imported"
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


def test_the_server_is_local_by_default() -> None:
    config = server_config("127.0.0.1", 8501)
    assert config["server.enableXsrfProtection"]
    assert config["browser.gatherUsageStats"] is False
    assert config["client.allowedOrigins"] == []  # else Streamlit's own sites may send commands
    assert "*" not in config["server.allowedHosts"]  # type: ignore[operator]
    assert Path(str(config["theme.base"])).is_file()
