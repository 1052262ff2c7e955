"""Map: training and test examples in 2-D, close together if they affect predictions similarly."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import streamlit as st

from dashboard.location import (
    EXPLAIN,
    EXPLORE,
    SELECTED,
    TRAINING,
    TRAINING_SET,
    Location,
    go,
    read_location,
)
from dashboard.names import plain, short
from dashboard.parts.charts.map_preview import map_preview
from dashboard.parts.charts.scatter_map import (
    DENSE,
    MOST_DRAWN,
    NAMES,
    OUTPUT,
    Selection,
    colours_of,
    corners_of,
    drawn_rows,
    layers,
    scatter,
    selection_of,
)
from dashboard.parts.controls.copy_link_button import copy_link
from dashboard.parts.controls.downloads import export_slice
from dashboard.parts.controls.segmented_choice import choice
from dashboard.parts.controls.selection_bar import selection_actions
from dashboard.parts.controls.slice_filters import slider_of
from dashboard.parts.curation.decision_export import export_training
from dashboard.parts.gallery.cards import test_cards, weight_cards
from dashboard.parts.gallery.gallery import Card, Group, gallery
from dashboard.parts.layout.blocks import aside
from dashboard.parts.layout.build_progress import building
from dashboard.parts.layout.messages import warning
from dashboard.parts.layout.page_fragment import part
from dashboard.parts.layout.page_title import title
from dashboard.parts.removal.removal_set_form import requested_set
from dashboard.read.maps import EMBEDDING, Kind, kinds_of, lasso_rows, lasso_text, positions
from dashboard.read.studies import (
    examples,
    matching,
    open_study,
    requested_row,
    weights,
    what_it_shows,
)
from dashboard.slice_parameters import FORMER, MOST_PICKED, read_rows, rows_text
from dashboard.writes import keep_set
from engine.store.errors import DataloupeError
from engine.store.layout import SPLITS, Split
from engine.study.live_and_maps import has_map
from engine.study.methods import ranked_methods
from engine.study.reader import StudyReader
from engine.study.removal_sets import parse_examples

SIDE = 84
SHOWN = 48
KIND_NAMES: dict[Kind, str] = {
    "umap": "Influence (UMAP)",
    "pca": "Influence (PCA)",
    EMBEDDING: "Embedding (PCA)",
}
CLOSE = (
    "with similar influence on predictions lie close together",
    "with similar embeddings lie close together",
)
LASSO = "lasso"
"""The parameter of a lasso around more examples than can be named one by one."""

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
kinds = kinds_of(study, algorithm, method) if study.has_data and method is not None else []
if not kinds or method is None:
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

drawn: Kind = parameter("kind", tuple(kinds), problems)
both: dict[Split, Any] = {split: examples(study, split, algorithm) for split in SPLITS}
colours = colours_of(both)
if OUTPUT in colours and st.query_params.get("colour") == study.dataset.output == FORMER:
    go(colour=OUTPUT)
by: str = parameter("colour", tuple(colours), problems) if colours else ""


def selected() -> Selection:
    """The selection, which is in the URL: rows, or a lasso around all that are within it."""
    found: Selection = {"train": [], "test": []}
    text = st.query_params.get(LASSO)
    if text is not None:
        within = lasso_rows(study, text, algorithm, str(method))
        if within is not None:
            return within
        problems.append(f"lasso must be a line around points of this map, not “{short(text)}”.")
    for split, name in SELECTED.items():
        rows = read_rows(name, st.query_params.to_dict(), study.dataset.rows(split), problems)
        found[split] = list(rows or ())
    if not found["train"] and (kept := requested_set(study)) is not None:
        found["train"] = kept.rows.tolist()
    return found


def select(found: Selection, corners: list[tuple[float, float]] | None = None) -> None:
    """Callback: replace the selection.

    Args:
        corners: Of the lasso that selected them; it is kept if they are too many to name.
    """
    if corners is not None:
        text = lasso_text(drawn, corners)
        around = lasso_rows(study, text, algorithm, str(method)) or found
        if max(map(len, around.values())) > MOST_PICKED:
            go(**{LASSO: text, "set": None}, **dict.fromkeys(SELECTED.values()))
            return
        found = around  # also those within it that are not drawn
    set_ = None
    if len(found["train"]) > MOST_PICKED:
        try:
            set_ = keep_set(
                study, found["train"], f"{len(found['train']):,} selected on the map"
            ).key
        except DataloupeError as error:
            st.session_state["map_message"] = f"{error} The first {MOST_PICKED} are selected."
    if len(found["test"]) > MOST_PICKED:
        st.session_state["map_message"] = (
            f"Only the first {MOST_PICKED} test {kind}s are selected; a lasso can hold more."
        )
    picked = {
        name: rows_text(found[split][:MOST_PICKED]) or None for split, name in SELECTED.items()
    }
    if set_ is not None:
        picked[SELECTED["train"]] = None
    go(**{LASSO: None, "set": set_}, **picked)


def chart_selected() -> None:
    """Callback of the chart: select by lasso, box or click."""
    chosen = st.session_state[chart_key()].selection
    if chosen.points:
        select(selection_of(chosen.points), corners_of(chosen))


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
    with st.container(horizontal=True, vertical_alignment="center", key="map_bar"):
        layouts: dict[str, str] = {one: KIND_NAMES[one] for one in kinds}
        choice("Layout", layouts, drawn, "kind", kinds[0], label_visibility="collapsed")
        if colours:
            st.html('<div class="dl-where">Color</div>', width="content")
            first = next(iter(colours))
            choice("Color by", colours, by, "colour", first, label_visibility="collapsed")
        without_mouse()
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
        named = kind if number == 1 else f"{kind}s"
        more = f", {SHOWN} shown" if number > SHOWN else ""
        gallery(
            study,
            split,
            [
                Group(
                    f"Selected {NAMES[split]} {kind}s",
                    [replace(card, score=None, bar=None) for card in cards],
                    title=f"{number:,} selected {NAMES[split]} {named}{more}",
                )
            ],
            SIDE,
            f"map_{split}",
            open_test if split == "test" else open_train,
            selected=chosen[split],
            most=max(number, 1),
            on_select=partial(select_in_grid, split),
        )


def select_in_grid(split: Split, rows: list[int]) -> None:
    """Callback of a grid: what is unmarked there leaves the selection on the map."""
    select({**selected(), split: rows})


def open_test(row: int) -> None:
    """Explain a test example."""
    st.switch_page(EXPLAIN, query_params=location.parameters(test=str(both["test"].ids[row])))


def open_train(row: int) -> None:
    """Open a training example."""
    st.switch_page(TRAINING, query_params=location.parameters(train=str(both["train"].ids[row])))


def bar(study: StudyReader, here: Location, chosen: Selection) -> None:
    """What is selected, what can be done with it, and the grids that show it."""
    with st.container(horizontal=True, vertical_alignment="center", key="map_selection"):
        st.html(
            f'<div class="dl-where" role="status"><b>{len(chosen["train"]):,}</b> training and '
            f"<b>{len(chosen['test']):,}</b> test {kind}s selected</div>",
            width="content",
        )
        nothing: Selection = {"train": [], "test": []}
        st.button("Clear", key="map_clear", on_click=select, args=(nothing,))
        split: Split = "train" if chosen["train"] else "test"
        rows = np.array(chosen[split], np.int64)
        selection_actions(study, here, split, both[split], rows)
        st.space("stretch")
        which = f"{len(rows):,} selected"
        if split == "train":
            export_training(study, here, rows, which)
        else:
            export_slice(study, both[split], rows, which, here)
        grids: dict[Split, str] = {"train": TRAINING_SET, "test": EXPLORE}
        for one, page in grids.items():
            if chosen[one]:
                st.page_link(
                    page, label=f"{NAMES[one].capitalize()} set", query_params=here.parameters()
                )


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
    if any(numbers.values()):
        bar(study, here, chosen)
    if message := st.session_state.pop("map_message", None):
        warning([message])
    dense = sum(sizes.values()) >= DENSE
    caption = (
        f"{kind.capitalize()}s {CLOSE[drawn == EMBEDDING]}. Circles: {count['train']:,} training "
        f"{kind}s. Diamonds: {count['test']:,} test {kind}s. "
        "Click a point, or select several with the lasso or box"
        + (": all within it are selected. Gray: where many are." if dense else ".")
    )
    if sum(sizes.values()) > MOST_DRAWN:
        caption += (
            f" An even sample of {sum(count.values()):,} of {sum(sizes.values()):,} is drawn."
        )
    place = positions(study, drawn, algorithm, str(method))
    figure = scatter(place, both, layers(both, rows, by), chosen, ring, by)
    with st.container(key="map_chart"):
        st.plotly_chart(
            figure,
            key=chart_key(),
            on_select=chart_selected,
            selection_mode=("points", "box", "lasso"),
            config={"displaylogo": False, "scrollZoom": True},
            alt=f"{KIND_NAMES[drawn]}: map of all examples"
            + (f", colored by {colours[by].lower()}" if by else "")
            + f". {caption}",
        )
    aside(caption)
    map_preview(study, "map_chart")
    galleries(here, chosen)


with st.container(horizontal=True, vertical_alignment="center"):
    st.html(title("Map", ""), width="content")
    controls()
    copy_link("copy")
selected()  # finds problems of the link
if problems:
    warning(["This link has invalid parameters.", *problems])
if looked_at() is None and (location.train or location.test):
    hint = (
        requested_row(study, "train", location.train)[1]
        or requested_row(study, "test", location.test)[1]
    )
    warning([f"There is no such {kind} here: “{short(location.train or location.test)}”.{hint}"])
part(location, chart)
