"""Batches of texts of about the same length, so that little padding is computed.

A batch whose padding is cut is as long as its longest text. Batches of texts in any order are all
nearly as long as the longest text of the data; batches of texts sorted by length are not. The
examples of such a batch do not follow one another: it carries their numbers in the tensor
`engine.attribution.trak.plan.ROWS`.
"""

from __future__ import annotations

import numpy as np


def length_buckets(lengths: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Split examples into batches of similar lengths.

    Every example is in one batch. The order is the same whenever the lengths are, longest first, so
    that a batch which does not fit in memory shows at once; examples of one length keep theirs.

    Args:
        lengths: Tokens of each example `[n]`, without padding.
        batch_size: Examples of a batch; the last batch may have fewer.

    Returns:
        Row numbers of each batch.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it must be 1 or more")
    order = np.argsort(-np.asarray(lengths), kind="stable")
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
