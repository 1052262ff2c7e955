"""A button that copies the URL of the view, which holds everything needed to show it again."""

from __future__ import annotations

import streamlit as st

_CSS = """
button {
  display: inline-flex; align-items: center; gap: 8px;
  min-height: 2.5rem; padding: 0 12px;
  border: 1px solid var(--dl-line); border-radius: var(--dl-radius);
  background: var(--dl-ground); color: var(--dl-ink);
  font: inherit; font-size: 0.875rem; cursor: pointer; white-space: nowrap;
}
button:hover { border-color: var(--dl-accent); color: var(--dl-accent); }
button:focus-visible { outline: 3px solid var(--dl-accent); outline-offset: 2px; }
input {
  display: block; width: 100%; box-sizing: border-box; margin-top: 6px; padding: 8px;
  border: 1px solid var(--dl-line); border-radius: var(--dl-radius);
  background: var(--dl-ground); color: var(--dl-ink); font: inherit; font-size: 0.85rem;
}
input[hidden] { display: none; }
"""

_HTML = """
<button type="button"><span aria-live="polite">Copy link</span></button>
<input hidden readonly aria-label="Link to this view">
"""

_JS = """
export default function ({ parentElement }) {
  const button = parentElement.querySelector("button")
  const words = button.querySelector("span")
  const field = parentElement.querySelector("input")
  words.textContent = "Copy link"
  field.hidden = true
  button.onclick = async () => {
    const url = window.location.href
    try {
      await navigator.clipboard.writeText(url)
      words.textContent = "Link copied"
      setTimeout(() => { words.textContent = "Copy link" }, 2000)
    } catch {
      // No clipboard without HTTPS or permission: show the link to copy by hand.
      field.value = url
      field.hidden = false
      field.select()
    }
  }
}
"""


def copy_link(key: str) -> None:
    """Show the button."""
    st.components.v2.component("dataloupe_copy_link", html=_HTML, css=_CSS, js=_JS)(
        key=key, width="content", height="content"
    )
