"""The demo: build the embedded study and open its dashboard while it grows."""

from __future__ import annotations

import time
from pathlib import Path

from engine.api import Study
from engine.build.build import build_checkpoints
from engine.build.generating import generate
from engine.cli.progress import BuildProgress
from engine.data.templates import MAKING, spec_from_template
from engine.running.launch import launch
from engine.store import layout
from engine.store.records import Progress

TRAINED = "-trained"
"""End of the name of the folder beside a demo's, with the models that made its test split."""


def demo(
    root: Path,
    template: str,
    device: str = "auto",
    workers: int | None = None,
    address: str = "127.0.0.1",
    port: int | None = None,
    open_browser: bool = True,
) -> int:
    """Build a template's study in `root`, or continue the one there, and serve it until Ctrl-C.

    The dashboard opens as soon as there are pictures to show. Its pages fill in as the build goes
    on, and show which stages are still running.
    """
    if not layout.spec_file(root).exists():
        text = spec_from_template(template)
        if template in MAKING:
            _let_models_make(root, text, device, workers)
        else:
            Study.create(root, text)
    study = Study.open(root)
    url: str | None = None
    started = time.monotonic()
    with BuildProgress(study) as progress:

        def show(step: Progress) -> None:
            nonlocal url
            progress.update(step)
            if url is None and study.has_data:
                url = launch(root, address=address, port=port, open_browser=open_browser)
                progress.say(f"The dashboard is open at {url} and fills in as the build goes on.")

        study.build(device, workers, on_progress=show)
    seconds = time.monotonic() - started
    print(f"Built in {seconds:.0f} s. The dashboard stays open at {url} until you press Ctrl-C.")
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        return 0


def _let_models_make(root: Path, text: str, device: str, workers: int | None) -> None:
    """Train a study's models beside `root`, or those that are missing, and write a study there
    whose test split they made."""
    trained = root.with_name(root.name + TRAINED)
    if not layout.spec_file(trained).exists():
        Study.create(trained, text)
    study = Study.open(trained)
    with BuildProgress(study) as progress:
        progress.say(f"The models are trained first, in {trained}, and then make pictures.")
        build_checkpoints(study, device, workers, progress.update)
    generate(study, root)
