"""All that pages change: each checks the person's role, makes the change, and is recorded.

No other module of the dashboard calls these functions of the engine; a test holds that. The record
is the study's audit log (`engine.study.audit_log`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from dashboard.permissions import Action, NotAllowed, Person, person, why_not
from engine.exchange.uploads import keeping
from engine.running.jobs import queue
from engine.running.kept_worker import KeptWorker
from engine.store import layout
from engine.store.errors import DataloupeError
from engine.store.text import counted
from engine.study import audit_log, decisions, removal_sets, slices, tags
from engine.study.names import resolve_upload
from engine.study.reader import StudyReader
from engine.study.uploads import Upload

Result = TypeVar("Result")


def _do(
    study: StudyReader,
    action: Action,
    what: str,
    write: Callable[[Person], Result],
    by: str | None = None,
) -> Result:
    """Make a change for this person, if they may, and record it.

    Raises:
        NotAllowed: They may not. This is recorded, too.
        DataloupeError: What `write` raises.
    """
    who = person()
    outcome = "done"
    try:
        if reason := why_not(action, by):
            outcome = "refused"
            raise NotAllowed(reason)
        return write(who)
    except DataloupeError as error:
        if outcome == "done":
            outcome = f"failed: {error}"
        raise
    finally:
        audit_log.record(study.root, who.key or who.role, what, outcome)


# --- jobs ---------------------------------------------------------------------------------------


def submit(study: StudyReader, kind: str, parameters: dict[str, Any], title: str = "") -> int:
    """Add a job to the queue. Raises as `engine.running.jobs.queue.submit`."""
    return _do(
        study,
        "run",
        f"start job: {title or kind}",
        lambda who: queue.submit(study, kind, parameters, title, who.key),
    )


def retry(study: StudyReader, number: int) -> int:
    """Run a job again."""
    what = f"retry job {number}"
    return _do(study, "run", what, lambda who: queue.retry(study, number, who.key))


def cancel(study: StudyReader, number: int) -> None:
    """Cancel a job."""
    by = queue.job(study.root, number).who
    _do(study, "run", f"cancel job {number}", lambda _: queue.cancel(study.root, number), by)


def cancel_all(study: StudyReader) -> int:
    """Cancel all jobs; return how many."""
    return _do(study, "change_any", "cancel all jobs", lambda _: queue.cancel_all(study.root))


# --- notes, tags, slices, sets ------------------------------------------------------------------


def tag(study: StudyReader, algorithm: str, test: int, name: str) -> None:
    """Add a tag to a prediction."""
    what = f"tag test row {test} of {algorithm}"
    _do(study, "write", what, lambda who: tags.tag(study, algorithm, test, name, who.key))


def tag_all(study: StudyReader, algorithm: str, tests: Sequence[int], name: str) -> None:
    """Add a tag to several predictions."""
    what = f"tag {counted(len(tests), 'test row')} of {algorithm}"

    def write(who: Person) -> None:
        for test in tests:
            tags.tag(study, algorithm, test, name, who.key)

    _do(study, "write", what, write)


def untag(study: StudyReader, algorithm: str, test: int, name: str) -> None:
    """Remove a tag from a prediction."""
    by = tags.author_of_tag(study, algorithm, test, name)
    what = f"remove a tag of test row {test} of {algorithm}"
    _do(study, "write", what, lambda who: tags.untag(study, algorithm, test, name, who.key), by)


def note(study: StudyReader, algorithm: str, test: int, text: str) -> None:
    """Add a note to a prediction."""
    what = f"note on test row {test} of {algorithm}"
    _do(study, "write", what, lambda who: tags.note(study, algorithm, test, text, who.key))


def undo(study: StudyReader, algorithm: str, test: int) -> None:
    """Revert the newest change of a prediction's tags and notes."""
    last = tags.read_tags(study, algorithm).get(test, tags.TagsAndNotes()).last
    by = last.who if last is not None else None
    what = f"undo on test row {test} of {algorithm}"
    _do(study, "write", what, lambda who: tags.undo(study, algorithm, test, who.key), by)


def decide(
    study: StudyReader, rows: Sequence[int], verdict: decisions.Verdict, label: str | None = None
) -> None:
    """Decide about training examples, in place of what was decided before."""
    known, me = decisions.read_decisions(study), person().key
    authors = [known[row].who for row in rows if row in known]
    by = next((one for one in authors if one != me), authors[0] if authors else None)
    what = f"decide {verdict} of {counted(len(rows), 'training example')}"

    def write(who: Person) -> None:
        for row in rows:
            decisions.decide(study, row, verdict, label, who.key)

    _do(study, "write", what, write, by)


def undo_decision(study: StudyReader, row: int) -> None:
    """Take back the decision about a training example."""
    last = decisions.read_decisions(study).get(row)
    by = last.who if last is not None else None
    what = f"undo decision of training row {row}"
    _do(study, "write", what, lambda who: decisions.undo(study, row, who.key), by)


def save_slice(study: StudyReader, name: str, parameters: Mapping[str, str]) -> slices.SavedSlice:
    """Save a slice under a name."""
    what = f"save slice {name!r}"
    return _do(
        study, "write", what, lambda who: slices.save_slice(study, name, parameters, who.key)
    )


def delete_slice(study: StudyReader, one: slices.SavedSlice) -> None:
    """Remove a saved slice."""
    what = f"delete slice {one.name!r}"
    _do(study, "write", what, lambda _: slices.delete_slice(study, one.name), one.who)


def keep_set(
    study: StudyReader, examples: Iterable[int | str], words: str
) -> removal_sets.RemovalSet:
    """Save a set of training examples. Opening one that is saved already is not a change."""
    named = removal_sets.name_set(study, examples, words)
    if layout.removal_set_file(study.root, named.key).exists():
        return named
    return _do(
        study,
        "write",
        f"save set {named.key}",
        lambda _: removal_sets.keep_set(study, named.rows.tolist(), words),
    )


# --- uploads ------------------------------------------------------------------------------------


def accept_upload(
    study: StudyReader,
    given: Sequence[keeping.Given],
    name: str,
    architecture: str | None,
    worker: KeptWorker,
) -> Upload:
    """Check files, and keep them as one upload."""
    return _do(
        study,
        "upload",
        f"upload {', '.join(one.name for one in given)}",
        lambda who: keeping.accept(study, given, name, who.key, architecture, worker),
    )


def rename_upload(study: StudyReader, upload: str, name: str) -> Upload:
    """Change an upload's display name."""
    by = resolve_upload(study, upload).who
    what = f"rename upload {upload}"
    return _do(study, "upload", what, lambda _: keeping.rename(study, upload, name), by)


def delete_upload(study: StudyReader, upload: str) -> None:
    """Remove an upload, and everything computed for it."""
    by = resolve_upload(study, upload).who
    what = f"delete upload {upload}"
    _do(study, "upload", what, lambda _: keeping.delete(study, upload), by)
