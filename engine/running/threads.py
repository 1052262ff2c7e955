"""Set the number of threads for a job's arithmetic.

The order of a sum depends on the number of threads, so the same job gives the same bytes only with
the same number. Each native library has its own pool (torch's OpenMP and MKL; an OpenBLAS in numpy,
in SciPy and in FAISS), and one setting reaches one library. `environment` sets the number for a new
process, `limited` for a running one.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator


def environment(threads: int) -> dict[str, str]:
    """Environment variables for a new process, for every library that it may load."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    return dict.fromkeys(names, str(threads))


@contextlib.contextmanager
def limited(threads: int) -> Iterator[None]:
    """Limit every library of this process to a number of threads, then restore the old numbers.

    A library that is loaded meanwhile reads the environment variables. Afterwards it gets the
    largest number that any other library had.
    """
    import torch
    from threadpoolctl import ThreadpoolController

    variables = {name: os.environ.get(name) for name in environment(threads)}
    of_torch = torch.get_num_threads()
    pools = ThreadpoolController().lib_controllers
    before = {pool.filepath: pool.num_threads for pool in pools}
    widest = max((of_torch, *before.values()))
    try:
        os.environ.update(environment(threads))
        for pool in pools:
            pool.set_num_threads(threads)
        torch.set_num_threads(threads)
        yield
    finally:
        for pool in ThreadpoolController().lib_controllers:
            pool.set_num_threads(before.get(pool.filepath, widest))
        torch.set_num_threads(of_torch)
        for name, value in variables.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
