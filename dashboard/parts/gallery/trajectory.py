"""How a picture came about that the models made: its frames, and a slider that chooses one.

A frame stands for the timesteps around it. Choosing it explains them: the address holds the output
of these timesteps, as if they had been chosen by name.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import streamlit as st

from dashboard.location import choose
from dashboard.parts.gallery.example_header import SIDE, picture_html
from dashboard.parts.gallery.gallery import thumbnail_side
from dashboard.read.picture_urls import frames_url
from engine.study.output_names import NamedOutput
from engine.study.reader import StudyReader
from engine.study.trajectories import Trajectory, range_choice, ranges_over, read_trajectory

KEY = "frame"
FINISHED = "finished"
SEEN, MADE_OUT = 0, 1
"""Lines of the sheet of frames."""


def way_of(study: StudyReader, row: int) -> Trajectory | None:
    """How a test example came about; None where that is not known, or none of it can be explained
    by itself."""
    return None if range_choice(study) is None else read_trajectory(study, row)


def show_way(
    study: StudyReader,
    row: int,
    example: Mapping[Hashable, object],
    way: Trajectory,
    output: NamedOutput,
) -> None:
    """The chosen frame, the slider, and all frames.

    Args:
        output: What is explained now.
    """
    outputs = ranges_over(study, row)
    chosen = _frame(output, outputs)
    if chosen is None:
        st.html(f'<div class="dl-subject">{picture_html(study, "test", row, example)}</div>')
    else:
        st.html(_large(study, row, way, chosen))
    stops = [str(step) for step in way.timesteps]
    st.session_state[KEY] = FINISHED if chosen is None else stops[chosen]

    def moved() -> None:
        stop = st.session_state[KEY]
        choose(output=None if stop == FINISHED else outputs[stops.index(stop)].name)

    st.select_slider(
        "From noise to the picture",
        [*stops, FINISHED],
        key=KEY,
        on_change=moved,
        format_func=lambda stop: stop if stop == FINISHED else f"timestep {int(stop):,}",
        help="Choose a frame to see which training pictures support the timesteps around it.",
    )
    st.html(_strip(study, row, way, chosen))


def _frame(output: NamedOutput, outputs: list[NamedOutput]) -> int | None:
    """The frame that stands for what is explained; None for all of the way."""
    if output.choice.takes != "range":
        return None
    middle = sum(_ends(output)) // 2
    holding = [place for place, one in enumerate(outputs) if middle in range(*_ends(one, 1))]
    return holding[0] if holding else None


def _ends(output: NamedOutput, beyond: int = 0) -> tuple[int, int]:
    """The first timestep of a range, and the last one or one beyond it."""
    first, last = map(int, output.classes[0].split("-"))
    return first, last + beyond


def _large(study: StudyReader, row: int, way: Trajectory, chosen: int) -> str:
    step = f"timestep {way.timesteps[chosen]:,}"
    parts = (
        (SEEN, f"Seen at {step}", f"What the model saw at {step}"),
        (MADE_OUT, "Made out in it", f"What it made out at {step}"),
    )
    shown = "".join(
        f"<figure>{_cut(study, row, way, chosen, line, alt)}"
        f"<figcaption>{words}</figcaption></figure>"
        for line, words, alt in parts
    )
    return f'<div class="dl-frame">{shown}</div>'


def _strip(study: StudyReader, row: int, way: Trajectory, chosen: int | None) -> str:
    """What the model made out at every frame, the last being the picture itself."""
    cells = "".join(
        _cut(study, row, way, place, MADE_OUT, current=place == chosen)
        for place in range(len(way.timesteps))
    )
    alt = f"What the model made out at {len(way.timesteps)} timesteps, from noise to the picture"
    return f'<div class="dl-frames" role="img" aria-label="{alt}">{cells}</div>'


def _cut(
    study: StudyReader,
    row: int,
    way: Trajectory,
    frame: int,
    line: int,
    alt: str | None = None,
    current: bool = False,
) -> str:
    """HTML of one frame, cut from the sheet of all."""
    across = 100 * frame / max(1, len(way.timesteps) - 1)
    named = "" if alt is None else f' role="img" aria-label="{alt}"'
    here = ' data-current="true"' if current else ""
    side = thumbnail_side(study.dataset.cell, SIDE // 2)
    style = (
        f"max-width:{side}px;background-image:url('{frames_url(study, row)}');"
        f"background-size:{100 * len(way.timesteps)}% 200%;"
        f"background-position:{across:.4f}% {100 * line}%"
    )
    return f'<div class="dl-still"{named}{here} style="{style}"></div>'
