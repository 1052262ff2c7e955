"""Events of controls that the page no longer has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from streamlit.runtime.scriptrunner import get_script_run_ctx


@contextmanager
def forgetting_controls_that_leave() -> Iterator[None]:
    """Forget the callbacks of controls that are not drawn within this context.

    A browser sends a change to a server that has drawn another page since: it was made while that
    page was on its way, or sent after a pause, as sliders do. Streamlit has removed the control's
    value by then, but not its callback, which would read it. Without the callback it ignores the
    change.
    """
    context: Any = get_script_run_ctx()
    callbacks: dict[str, object] = context.session_state._state._new_widget_state.widget_metadata
    before = dict(callbacks)
    yield  # a run that another one interrupts ends here: it has not drawn everything
    for control, callback in before.items():
        if callbacks.get(control) is callback:  # each run registers a new one
            del callbacks[control]
