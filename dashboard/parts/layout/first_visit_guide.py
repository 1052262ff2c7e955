"""The first-visit guide: three sentences that stay hidden once dismissed.

The browser remembers that, not the server.
"""

from __future__ import annotations

import streamlit as st

_CSS = """
aside {
  position: relative;
  padding: 16px 56px 16px 20px;
  border: 1px solid var(--dl-line);
  border-left: 4px solid var(--dl-accent);
  border-radius: var(--dl-radius);
  background: var(--dl-surface);
  color: var(--dl-ink); font-family: var(--st-font); font-size: 0.93rem; line-height: 1.55;
}
aside[hidden] { display: none; }
p { margin: 0 0 6px; font-weight: 650; }
ol { display: grid; gap: 4px; margin: 0; padding: 0 0 0 1.3em; }
button {
  position: absolute; top: 10px; right: 10px; width: 36px; height: 36px;
  border: 0; border-radius: var(--dl-radius); background: none;
  color: var(--dl-muted); font-size: 1.1rem; cursor: pointer;
}
button:hover { color: var(--dl-ink); background: var(--dl-line); }
button:focus-visible { outline: 3px solid var(--dl-accent); }
"""

_HTML = """
<aside hidden aria-label="First steps">
  <p>Why does the model predict this? Look at its training data.</p>
  <ol>
    <li><b>Pick a prediction</b>: {start}.</li>
    <li><b>Explain it</b>: blue training examples {effect}.
      Use the arrow keys to move between them.</li>
    <li><b>Go the other way</b>: click a training example to see which predictions it helps and
      hurts.</li>
  </ol>
  <button type="button" aria-label="Dismiss the first steps">✕</button>
</aside>
"""

_JS = """
const KEY = "dataloupe.first-steps"

export default function ({ parentElement }) {
  const panel = parentElement.querySelector("aside")
  // Without local storage, the guide is shown at each visit.
  const kept = (work) => { try { return work() } catch { return null } }
  panel.hidden = kept(() => localStorage.getItem(KEY)) !== null
  panel.querySelector("button").onclick = () => {
    panel.hidden = true
    kept(() => localStorage.setItem(KEY, "dismissed"))
  }
}
"""


_WORDS = {
    True: {
        "start": "a cell of the confusion matrix below, or any card of the test set",
        "effect": "support its true label, orange ones oppose it",
    },
    False: {
        "start": "any card of the test set",
        "effect": "raise its output, orange ones lower it",
    },
}


def guide(outcomes: bool) -> None:
    """Show the guide unless this browser has dismissed it.

    Args:
        outcomes: Whether predictions are classes that can be right.
    """
    html = _HTML.format(**_WORDS[outcomes])
    st.components.v2.component("dataloupe_guide", html=html, css=_CSS, js=_JS)(
        key="guide", height="content"
    )
