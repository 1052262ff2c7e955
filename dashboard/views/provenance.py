"""Provenance: the data, code and settings behind a study, and whether its files are intact."""

from __future__ import annotations

import platform
import shlex
from datetime import UTC, datetime
from html import escape
from importlib.metadata import version

import streamlit as st

from dashboard.location import read_location
from dashboard.names import short
from dashboard.parts.layout.blocks import facts, heading, table
from dashboard.parts.layout.page_title import title
from dashboard.read.stored_files import examined, files_stamp, stage_files
from dashboard.read.studies import open_study
from engine import store
from engine.store import layout
from engine.store.cache import stamp_of
from engine.study.capabilities import has
from engine.study.methods import imported_methods
from engine.study.progress import stage_progress
from engine.study.run_banks import finished_runs, read_bank_import, wanted_runs
from engine.study.stage_titles import TITLES

OUTPUTS = {
    "margin": "margin: logit of the label − logsumexp of the others",
    "max-margin": "max-margin: logit of the label − the largest other (not the margin used here)",
}
PACKAGES = ("dataloupe", "numpy", "pandas", "pyarrow", "faiss-cpu", "streamlit", "torch")

study = open_study()
location = read_location(study)
algorithm = location.algorithm


def size(number: float) -> str:
    """Bytes in a readable unit."""
    for unit in ("B", "KB", "MB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:,.3g} GB"


def moment(seconds: float) -> str:
    """A file's modification time, in UTC."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"


st.html(
    title("Provenance", "data, code and settings of this study, and whether its files are intact")
)

# --- stages and checksums ----------------------------------------------------------------------

heading("Files of each stage")
progress = {
    step.stage: step for step in stage_progress(study) if step.algorithm in (None, algorithm)
}
rows = []
for stage, step in progress.items():
    files = stage_files(study, stage, algorithm)
    state = "complete" if step.complete else f"{step.done:,} of {step.total:,}"
    newest = max((file.changed for file in files), default=None)
    rows.append(
        [
            TITLES[stage],
            state,
            f"{len(files):,}",
            size(sum(file.size for file in files)),
            "–" if newest is None else moment(newest),
        ]
    )
table("Stages", ["Stage", "State", "Files", "Size", "Last written"], rows)

stamp = files_stamp(study)
with st.container(horizontal=True, vertical_alignment="center"):
    if st.button("Verify all checksums", icon=":material/verified:", key="verify"):
        st.session_state["verified"] = stamp
    if st.session_state.get("verified") == stamp:
        with st.spinner("Reading every file…"):
            report = examined(study, stamp)
        kind = "wrong" if report.broken or report.notes else "good"
        summary = escape(report.summary)
        st.html(f'<p class="dl-result" data-kind="{kind}" role="status">{summary}</p>')
    elif "verified" in st.session_state:
        st.html(
            '<p class="dl-aside" role="status">Files have changed since then; verify again.</p>'
        )
    else:
        st.html(
            '<p class="dl-aside">Reads every file; this can take a while for a large study.</p>'
        )
if st.session_state.get("verified") == stamp and (report.broken or report.notes):
    lines = (*report.broken, *report.notes)
    entries = "".join(f"<li>{escape(line)}</li>" for line in lines)
    st.html(f'<ul class="dl-list">{entries}</ul>')

# --- data, spec, server and checkpoints --------------------------------------------------------

left, right = st.columns(2, gap="large")
with left:
    heading("Data")
    if study.has_data:
        dataset = study.dataset
        facts(
            {
                "Fingerprint": dataset.fingerprint,
                "Source": dataset.source,
                "Task": dataset.task,
                **({"Classes": short(", ".join(dataset.classes))} if dataset.classes else {}),
                **({} if has(study, "classes") else {"Model output": dataset.output_title}),
                "Encoding": ", ".join(f"{key} {value}" for key, value in dataset.encoding.items())
                or "None",
                "Notes": " ".join(dataset.notes) or "None",
                "Warnings": " ".join(dataset.warnings) or "None",
            }
        )
    else:
        st.html('<p class="dl-aside">Not read yet.</p>')
    heading("Reproduce")
    root = shlex.quote(str(study.root))
    verbs = ("build", "doctor", "serve")
    # No language: the color of comments has too little contrast.
    st.code("\n".join(f"dataloupe {verb} {root}" for verb in verbs), language=None, wrap_lines=True)
    st.html(
        '<p class="dl-aside">build computes missing files, with the same bytes for the same spec, '
        "seed and device; doctor verifies every file and lists broken ones.</p>"
    )
    heading("For programs")
    st.html(
        '<p class="dl-aside">Every page has a twin in JSON: <a href="api">the API of this '
        'server</a>, described by <a href="api/openapi.json">its OpenAPI document</a>. '
        "<code>dataloupe mcp</code> lets an assistant ask the same.</p>"
    )
    heading("This server")
    facts(
        {
            "Study": str(study.root),
            "Python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
            "Packages": ", ".join(f"{name} {version(name)}" for name in PACKAGES),
        }
    )
with right:
    heading("The spec: study.toml")
    st.code(
        layout.spec_file(study.root).read_text(encoding="utf-8"), language=None, wrap_lines=True
    )

heading(f"Checkpoints of {algorithm}")
checkpoints = []
for checkpoint in range(study.checkpoints(algorithm)):
    path = layout.checkpoint_file(study.root, algorithm, checkpoint)
    if (written := stamp_of(path)) is not None:
        metadata = store.read_metadata(path)
        versions = ", ".join(
            f"{name} {metadata[name]}"
            for name in ("dataloupe", "torch", "numpy")
            if name in metadata
        )
        source = str(metadata.get("source", f"seed {metadata.get('seed')}"))
        device = str(metadata.get("device", "–"))
        checkpoints.append(
            [f"{checkpoint:03d}", source, device, versions, moment(written[0] / 1e9)]
        )
if checkpoints:
    table("Checkpoints", ["Checkpoint", "From", "Device", "Versions", "Written"], checkpoints)
else:
    st.html('<p class="dl-aside">None trained yet.</p>')

bank, runs = read_bank_import(study, algorithm), study.spec.subset_runs
if bank is not None:
    heading("Run bank, imported")
    facts(
        {
            "Runs": f"{bank.runs:,} on {bank.masks:,} masks, α {bank.alpha:g}",
            "Model output": OUTPUTS.get(bank.output, bank.output),
            "From": f"{bank.folder}: {', '.join(bank.files)}",
            "SHA-256": ", ".join(digest[:16] for digest in bank.files.values()),
            "Notes": " ".join(bank.notes) or "None",
        }
    )
elif wanted_runs(study):
    heading(f"Run bank of {algorithm}")
    finished, wanted = len(finished_runs(study, algorithm)), len(wanted_runs(study))
    facts(
        {
            "Runs": f"{finished:,} of {wanted:,}: {runs.masks:,} masks, α {runs.alpha:g}, "
            f"{runs.seeds:,} per mask, {runs.runs_per_test_mask:,} per test mask",
            "Model output": OUTPUTS.get(study.dataset.output, study.dataset.output_title),
        }
    )

imports = imported_methods(study, algorithm)
if imports:
    heading("Imported scores")
    table(
        "Imported scores",
        ["Method", "Tool", "File", "SHA-256", "Matrix", "Settings"],
        [
            [
                name,
                one.tool or "–",
                ", ".join(one.files),
                ", ".join(digest[:16] for digest in one.files.values()),
                f"{' × '.join(f'{n:,}' for n in one.shape)}, one row per {one.rows} example"
                + (", signs flipped" if one.negated else ""),
                ", ".join(f"{key} {value}" for key, value in one.settings.items()) or "–",
            ]
            for name, one in imports.items()
        ],
    )
