"""Live queries: attribute an output of one example when somebody asks for it.

queries     what is asked, and what is answered; needs no torch
reading     what somebody sent → the small arrays that the models take
completing  the part that somebody did not send, as models find it
loading     models, training features and inverses of a study, loaded once
answering   predict and attribute an example from outside, or one of the study's own
explaining  the answer for a test example as an `Explanation`

The example may be from outside the study, or the output another than the one whose scores are
stored. Both need the same: the gradient of the output for one example. The training side stays as
it was built: its features are gradients of the default output, which the training loss is a
function of, and Q its derivative.

Reading may be slow or hostile; answering takes equally long for every example. So the two can run
in different processes. Both need torch: they run in a script, or in workers kept for them
(`engine.running.kept_worker.KeptWorker`). Importing these modules does not import torch.
"""

from engine.applications.live.answering import explain, explain_stored, run_query, warm_up
from engine.applications.live.loading import Kept, Loaded, Output, live_stamps, load, output_of
from engine.applications.live.queries import (
    KEPT,
    Attributed,
    Completed,
    Example,
    Query,
    QueryResult,
    ReadQuery,
    StoredQuery,
)
from engine.applications.live.reading import LONGEST_TEXT, read_example, warm_up_reading

__all__ = [
    "KEPT",
    "LONGEST_TEXT",
    "Attributed",
    "Completed",
    "Example",
    "Kept",
    "Loaded",
    "Output",
    "Query",
    "QueryResult",
    "ReadQuery",
    "StoredQuery",
    "explain",
    "explain_stored",
    "live_stamps",
    "load",
    "output_of",
    "read_example",
    "run_query",
    "warm_up",
    "warm_up_reading",
]
