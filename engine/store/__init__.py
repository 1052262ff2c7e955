"""A study's files: how they are written, where they are, and what can go wrong.

    from engine import store
    store.write_tensors(path, {"scores": scores}, fingerprint)

`files` writes and reads them, `layout` names them, `spec` reads study.toml, `records` are
the plain values that a study is read as, `errors` are the messages for people.
"""

from engine.store.files import (
    FINGERPRINT_KEY,
    MatrixFile,
    atomic,
    broken,
    check_fingerprint,
    file_digest,
    filling_matrix,
    fingerprint_of,
    is_there,
    json_fingerprint,
    read_header,
    read_json,
    read_metadata,
    read_table,
    read_tensors,
    remove_leftovers,
    tensors_fingerprint,
    write_json,
    write_table,
    write_tensors,
)
from engine.store.io_errors import writing_to

__all__ = [
    "FINGERPRINT_KEY",
    "MatrixFile",
    "atomic",
    "broken",
    "check_fingerprint",
    "file_digest",
    "filling_matrix",
    "fingerprint_of",
    "is_there",
    "json_fingerprint",
    "read_header",
    "read_json",
    "read_metadata",
    "read_table",
    "read_tensors",
    "remove_leftovers",
    "tensors_fingerprint",
    "write_json",
    "write_table",
    "write_tensors",
    "writing_to",
]
