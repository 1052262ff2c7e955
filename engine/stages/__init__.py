"""The stages of a build, one a file: data → … → search.

A stage is a `run` function that makes the files that are missing, and functions that say what each
file is made from (its fingerprint). The fingerprints chain: a file's covers the fingerprints of
what it was computed from, so a change anywhere upstream shows in every file downstream.
"""

STAGES = ("data", "checkpoints", "predictions", "neighbours", "trak", "search", "bank")
