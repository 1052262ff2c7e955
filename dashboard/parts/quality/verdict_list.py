"""A list of what scores can be used for: yes, with care, or no."""

from __future__ import annotations

from html import escape

from engine.attribution.evaluation.verdict import Verdict

ANSWERS = {"yes": ("✓", "Yes"), "care": ("!", "With care"), "no": ("✕", "No")}


def verdict_list(found: Verdict) -> str:
    """HTML of the verdict: its summary, each use with yes, care or no, and its cautions."""
    uses = ""
    for use in found.uses:
        mark, word = ANSWERS[use.answer]
        uses += (
            f'<li data-answer="{use.answer}"><span aria-hidden="true">{mark}</span>'
            f"<div><b>{escape(use.what)}</b><em>{word}</em><p>{escape(use.why)}</p></div></li>"
        )
    cautions = "".join(f"<li>{escape(caution)}</li>" for caution in found.cautions)
    also = f'<ul class="dl-list">{cautions}</ul>' if cautions else ""
    return (
        f'<section class="dl-verdict-list"><p><b>{escape(found.grade)}.</b> '
        f'{escape(found.summary)}</p><ul role="list" aria-label="What these scores are good for">'
        f"{uses}</ul>{also}</section>"
    )
