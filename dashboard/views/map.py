"""Map: training and test examples in 2-D, close together if they affect predictions similarly."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import streamlit as st

from dashboard.location import EXPLAIN, TRAINING, Location, go, read_location
from dashboard.names import plain, short
from dashboard.parts.charts.scatter_map import (
    MOST_DRAWN,
    NAMES,
    OUTPUT,
    Selection,
    colours_of,
    drawn_rows,
    layers,
    scatter,
    selection_of,
)
from dashboard.parts.controls.copy_link_button import copy_link
from dashboard.parts.controls.segmented_choice import choice
from dashboard.parts.controls.slice_filters import slider_of
from dashboard.parts.gallery.cards import test_cards, weight_cards
from dashboard.parts.gallery.gallery import Card, Group, gallery
from dashboard.parts.layout.blocks import aside
from dashboard.parts.layout.build_progress import building
from dashboard.parts.layout.messages import warning
from dashboard.parts.layout.page_fragment import part
from dashboard.parts.layout.page_title import title
from dashboard.parts.quality.quality_badge import quality_badge
from dashboard.parts.removal.removal_buttons import removal_buttons
from dashboard.read.studies import (
    badge,
    examples,
    matching,
    open_study,
    requested_row,
    weights,
    what_it_shows,
)
from dashboard.slice_parameters import FORMER
from engine.store.layout import MAP_KINDS, SPLITS, MapKind, Split
from engine.study.live_and_maps import has_map, read_map
from engine.study.methods import ranked_methods
from engine.study.reader import StudyReader
from engine.study.removal_sets import parse_examples

SIDE = 84
SHOWN = 48
KIND_NAMES: dict[MapKind, str] = {"umap": "UMAP", "pca": "PCA"}

study = open_study()
location = read_location(study)
algorithm, method = location.algorithm, location.method
kind = what_it_shows(study)


def parameter(name: str, options: tuple[Any, ...], problems: list[str]) -> Any:
    """A URL parameter that must be one of the options; the first is the default."""
    value = st.query_params.get(name, options[0])
    if value not in options:
        problems.append(f"{name} must be one of {', '.join(options)}, not “{short(value)}”.")
        return options[0]
    return value


problems: list[str] = []
drawn: MapKind = parameter("kind", MAP_KINDS, problems)
if (
    not study.has_data
    or method is None
    or not all(has_map(study, algorithm, method, one) for one in MAP_KINDS)
):
    st.html(title("Map", "not drawn yet"))
    building(
        "The map appears when everything else is computed",
        lambda study: any(
            has_map(study, algorithm, one, "pca") and has_map(study, algorithm, one, "umap")
            for one in (ranked_methods(study, algorithm) if study.has_data else [])
            if method in (None, one)
        ),
        algorithm,
    )
    st.stop()

both: dict[Split, Any] = {split: examples(study, split, algorithm) for split in SPLITS}
colours = colours_of(both)
if OUTPUT in colours and st.query_params.get("colour") == study.dataset.output == FORMER:
    st.query_params["colour"] = OUTPUT
by: str = parameter("colour", tuple(colours), problems) if colours else ""
STATE = f"map selection {location.study} {algorithm}"


def selected() -> Selection:
    """The selection, kept for this session however the chart is redrawn."""
    found: Selection = st.session_state.get(STATE, {"train": [], "test": []})
    return found


def select(found: Selection) -> None:
    """Callback: replace the selection."""
    st.session_state[STATE] = found


def chart_selected() -> None:
    """Callback of the chart: select by lasso, box or click."""
    points = st.session_state[chart_key()].selection.points
    if points:
        select(selection_of(points))


def chart_key() -> str:
    """Key of the chart: a new one resets the chart when other points or colors are shown."""
    return f"map {method} {drawn} {by}"


def looked_at() -> tuple[Split, int] | None:
    """The point that the URL names; the training example if it names two."""
    for split in SPLITS:
        id_ = location.train if split == "train" else location.test
        row, _ = requested_row(study, split, id_)
        if row is not None:
            return split, row
    return None


def controls() -> None:
    """Controls for the layout and the color of the points."""
    with st.container(horizontal=True, vertical_alignment="bottom", key="map_bar"):
        kinds: dict[str, str] = {kind: KIND_NAMES[kind] for kind in MAP_KINDS}
        choice("Layout", kinds, drawn, "kind", MAP_KINDS[0])
        if colours:
            choice("Color by", colours, by, "colour", next(iter(colours)))
        if (ring := looked_at()) is not None:
            split, row = ring
            st.button(
                f"Remove the ring around {NAMES[split]} {kind} {plain(both[split].ids[row])}",
                icon=":material/close:",
                key="unring",
                on_click=go,
                kwargs={"train": None, "test": None},
            )


def without_mouse() -> None:
    """The same selection without a mouse."""
    with (
        st.popover("Select", icon=":material/check_box:", width="content"),
        st.form("select_on_map", border=False),
    ):
        by_label = label_choice()
        which = st.multiselect(
            "From", list(SPLITS), ["train"], format_func=NAMES.__getitem__, key="map_of"
        )
        st.text_area(f"Or training {kind}s by ids, or rows as #17", key="map_ids", max_chars=20_000)
        st.form_submit_button("Select", on_click=select_chosen)
    if not by_label and not which:
        aside("Choose train, test or both.")


def label_choice() -> bool:
    """Choose examples by their label: whether some are chosen so."""
    training = both["train"]
    if "label" in training.numbers:
        ends, step, shown = slider_of(training.numbers["label"])
        chosen = st.slider("Labels", *ends, ends, step=step, format=shown, key="map_labels")
        return chosen != ends
    if not training.classes:
        return False
    label = st.selectbox(
        "All of a class", training.classes, index=None, placeholder="None", key="map_class"
    )
    return label is not None


def select_chosen() -> None:
    """Callback of that form: select by label and by ids."""
    found: Selection = {"train": [], "test": []}
    label = st.session_state.get("map_class")
    if "label" in both["train"].numbers:
        chosen = st.session_state["map_labels"]
        label = None if chosen == slider_of(both["train"].numbers["label"])[0] else chosen
    if label is not None:
        for split in st.session_state["map_of"]:
            found[split] = matching(both[split], {"label": label}).tolist()
    named = parse_examples(study, st.session_state["map_ids"])
    found["train"] = np.union1d(found["train"], named.rows).astype(int).tolist()
    if named.unknown:
        unknown = ", ".join(short(word) for word in named.unknown[:5])
        st.session_state["map_message"] = (
            f"No training {kind} has the id {unknown}; ignored.{named.hint}"
        )
    select(found)


def galleries(here: Location, chosen: Selection) -> None:
    """The selected training and test examples."""
    rows = {split: np.array(chosen[split], np.int64) for split in SPLITS}
    weight = weights(study, algorithm, str(method))
    trains = rows["train"][np.argsort(-weight.total[rows["train"]], kind="stable")]
    cards_of: dict[Split, list[Card]] = {
        "train": weight_cards(both["train"], trains[:SHOWN], weight, here),
        "test": test_cards(both["test"], rows["test"][:SHOWN], here),
    }
    for split, cards in cards_of.items():
        if not len(rows[split]):
            continue
        number = len(rows[split])
        more = f", {SHOWN} shown" if number > SHOWN else ""
        gallery(
            study,
            split,
            [
                Group(
                    f"Selected {NAMES[split]} {kind}s",
                    [replace(card, score=None, bar=None) for card in cards],
                    title=f"Selected {NAMES[split]} {kind}s",
                    words=f"{number:,}{more}.",
                )
            ],
            SIDE,
            f"map_{split}",
            open_test if split == "test" else open_train,
        )


def open_test(row: int) -> None:
    """Explain a test example."""
    st.switch_page(EXPLAIN, query_params=location.parameters(test=str(both["test"].ids[row])))


def open_train(row: int) -> None:
    """Open a training example."""
    st.switch_page(TRAINING, query_params=location.parameters(train=str(both["train"].ids[row])))


def chart(study: StudyReader, here: Location) -> None:
    """The chart and its selection."""
    chosen, ring = selected(), looked_at()
    sizes: dict[Split, int] = {split: study.dataset.rows(split) for split in SPLITS}
    keep_drawn: Selection = {split: list(chosen[split]) for split in SPLITS}
    if ring is not None:
        keep_drawn[ring[0]].insert(0, ring[1])
    rows = drawn_rows(sizes, keep_drawn)
    count = {split: len(found) for split, found in rows.items()}
    numbers = {split: len(chosen[split]) for split in SPLITS}
    with st.container(horizontal=True, vertical_alignment="center", key="map_selection"):
        without_mouse()
        st.html(
            f'<div class="dl-where" role="status"><b>{numbers["train"]:,}</b> training and '
            f"<b>{numbers['test']:,}</b> test {kind}s selected</div>",
            width="content",
        )
        nothing: Selection = {"train": [], "test": []}
        if any(numbers.values()):
            st.button("Clear", key="map_clear", on_click=select, args=(nothing,))
        removal_buttons(
            study,
            np.array(chosen["train"], np.int64),
            f"{numbers['train']:,} selected on the map",
            here,
            f"What if these {numbers['train']:,} were removed?",
        )
    if message := st.session_state.pop("map_message", None):
        warning([message])
    caption = (
        f"Circles: {count['train']:,} training {kind}s. Diamonds: {count['test']:,} test {kind}s. "
        "Click a point, or select several with the lasso or box."
    )
    if sum(sizes.values()) > MOST_DRAWN:
        caption += (
            f" An even sample of {sum(count.values()):,} of {sum(sizes.values()):,} is drawn."
        )
    aside(caption)
    place = read_map(study, drawn, algorithm, method)
    figure = scatter(place, both, layers(both, rows, by), chosen, ring, by)
    st.plotly_chart(
        figure,
        key=chart_key(),
        on_select=chart_selected,
        selection_mode=("points", "box", "lasso"),
        config={"displaylogo": False, "scrollZoom": True},
        alt=f"{KIND_NAMES[drawn]} map of the attribution space"
        + (f", colored by {colours[by].lower()}" if by else "")
        + f". {caption}",
    )
    galleries(here, chosen)


with st.container(horizontal=True, vertical_alignment="center"):
    st.html(title("Map", f"{kind}s with similar influence on predictions lie close together"))
    st.space("stretch")
    quality_badge(badge(study, algorithm, method))
    copy_link("copy")
if problems:
    warning(["This link has invalid parameters.", *problems])
if looked_at() is None and (location.train or location.test):
    hint = (
        requested_row(study, "train", location.train)[1]
        or requested_row(study, "test", location.test)[1]
    )
    warning([f"There is no such {kind} here: “{short(location.train or location.test)}”.{hint}"])
controls()
part(location, chart)
