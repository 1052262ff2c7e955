"""Which tokens carry the influence of one training text on one prediction."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import streamlit as st

from dashboard.location import choose, go
from dashboard.names import plain, short
from dashboard.parts.layout.messages import notice
from dashboard.parts.outputs.wording import shortened
from dashboard.parts.text.shown_text import in_order
from dashboard.parts.text.token_shading import shaded_text, shading_html
from dashboard.permissions import session
from dashboard.read import token_shares
from dashboard.read.studies import Examples
from engine.applications.token_shares import TokenShares
from engine.data.tokens import token_spans
from engine.store.errors import DataloupeError, UntrustedCode
from engine.store.layout import TRAK
from engine.store.quantities import SCORE
from engine.study.live_and_maps import keeps_checkpoints
from engine.study.names import find_row
from engine.study.output_names import NamedOutput, default_output
from engine.study.reader import StudyReader
from engine.study.trust import require_trust

PARAMETER = "tokens"
"""URL parameter: id of the training text whose tokens are shown."""


def can_split(study: StudyReader, algorithm: str, method: str | None, examples: Examples) -> bool:
    """Whether scores can be split over tokens: texts, TRAK, and what live queries need.

    Args:
        method: That the scores are computed by.
    """
    if not examples.has_texts or method != TRAK:
        return False
    return keeps_checkpoints(study, algorithm)


def choose_text(
    study: StudyReader,
    algorithm: str,
    training: Examples,
    test_row: int,
    rows: Sequence[int],
    output: NamedOutput | None,
) -> None:
    """A choice among training texts, and the tokens of the chosen one; nothing until one is.

    Args:
        test_row: The explained test text.
        rows: The training texts on the page, strongest first.
        output: That the scores are about; None: the one whose scores are stored.
    """
    chosen = find_row(study, "train", st.query_params.get(PARAMETER, ""))
    offered = list(dict.fromkeys([*rows, *([] if chosen is None else [chosen])]))
    if not offered:
        return
    st.html(
        '<h2 class="dl-section">Which tokens carry it</h2><p class="dl-aside">A score is a sum '
        "over the tokens of the training text, and just as well over those of the test text.</p>"
    )
    st.session_state[PARAMETER] = chosen

    def changed() -> None:
        row = st.session_state[PARAMETER]
        choose(**{PARAMETER: None if row is None else str(training.ids[row])})

    def name(row: int) -> str:
        text = " ".join(in_order(training.table["text"].iloc[row]).split())
        return f"{short(training.ids[row])}: {short(text)}"

    st.selectbox(
        "Training text",
        offered,
        index=None,
        placeholder="Choose a training text of this page",
        format_func=name,
        key=PARAMETER,
        on_change=changed,
    )
    if chosen is not None:
        tokens_of_pair(study, algorithm, training, test_row, chosen, output)


def tokens_on_request(
    study: StudyReader, algorithm: str, training: Examples, test_row: int, row: int
) -> None:
    """The tokens of a pair, once somebody asks for them, for the output whose scores are stored."""
    id_ = str(training.ids[row])
    st.html('<h2 class="dl-section">Which tokens carry its influence</h2>')
    if st.query_params.get(PARAMETER) == id_:
        tokens_of_pair(study, algorithm, training, test_row, row, None)
        return
    test = plain(study.table("test")["id"].iloc[test_row])
    st.button(
        f"Split its score for {test} over tokens",
        key="split_tokens",
        on_click=go,
        kwargs={PARAMETER: id_},
    )


def tokens_of_pair(
    study: StudyReader,
    algorithm: str,
    training: Examples,
    test_row: int,
    row: int,
    output: NamedOutput | None,
) -> None:
    """Both texts of a pair with their tokens shaded."""
    name = None if output is None else output.name
    try:
        require_trust(study)
        with st.spinner("Splitting the score over tokens (the first time loads the models)…"):
            found = token_shares.shares_of(study, algorithm, test_row, row, name, session())
    except UntrustedCode as error:
        notice("This study names code that is not trusted here", str(error), kind="error")
        return
    except DataloupeError as error:
        notice("This score cannot be split over tokens", str(error), kind="error")
        return
    test = str(study.table("test")["text"].iloc[test_row])
    about = shortened(output or default_output(study)).title
    own = str(training.table["text"].iloc[row])
    pair_of_texts(study, found, test, own, training.ids[row], about)


def pair_of_texts(
    study: StudyReader, found: TokenShares, test: str, train: str, train_id: object, about: str
) -> None:
    """The legend, the switch for numbers, and the two texts.

    Args:
        about: What the score answers, as part of a sentence.
    """
    encoding = study.dataset.encoding
    own = shaded_text(
        train, token_spans(train, encoding), found.train[0], float(found.train_whole[0])
    )
    theirs = shaded_text(
        test, token_spans(test, encoding), found.test[0], float(found.test_whole[0])
    )
    score = float(found.scores[0])
    with st.container(horizontal=True, vertical_alignment="center"):
        over = "1 checkpoint" if found.checkpoints == 1 else f"{found.checkpoints} checkpoints"
        st.html(
            f'<p class="dl-token-legend"><span class="dl-token" data-sign="supports" '
            f'data-strong="+" style="--share:.8">supports</span> '
            f'<span class="dl-token" data-sign="opposes" data-strong="−" style="--share:.8">'
            f"opposes</span> Score <b>{SCORE.text(score)}</b> for "
            f"<bdi>{escape(in_order(about))}</bdi>, over {over}</p>",
            width="content",
        )
        st.space("stretch")
        numbers = st.toggle("Numbers", key="token_numbers", help="The share of each token above it")
    titles = (
        f"Training text <bdi>{escape(in_order(short(train_id)))}</bdi>",
        "The explained text",
    )
    scale = max(own.largest, theirs.largest)
    shown = [
        shading_html(text, scale, numbers, title)
        for text, title in zip((own, theirs), titles, strict=True)
    ]
    st.html(f'<div class="dl-two-texts">{"".join(shown)}</div>')
