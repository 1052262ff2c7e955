"""Files as other tools leave them, written by hand. `test_importing.py` holds the layouts against
the tools themselves, where they are installed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from engine.exchange.importing import kronfluence


def saved(path: Path, array: Any) -> Path:
    """`array` in the format of `.npy`, whatever the file is called."""
    with path.open("wb") as file:
        np.save(file, array, allow_pickle=True)
    return path


def write_traker(
    folder: Path, scores: np.ndarray, experiment: str = "test", final: int = 1
) -> Path:
    """A save_dir of traker 0.3.2 with one experiment; `scores` are `[n_test, n_train]`."""
    (folder / "scores").mkdir(parents=True)
    saved(folder / "scores" / f"{experiment}.mmap", scores.T.copy())
    said = {"JL dimension": 16, "JL matrix type": "normal", "train set size": scores.shape[1]}
    (folder / "metadata.json").write_text(json.dumps(said))
    experiments = {
        experiment: {
            "num_targets": scores.shape[0],
            "scores_path": f"/elsewhere/scores/{experiment}.mmap",
            "scores_finalized": final,
        }
    }
    (folder / "experiments.json").write_text(json.dumps(experiments))
    (folder / "id_0.json").write_text('{"0": {"is_featurized": 1, "is_finalized": 1}}')
    return folder


def write_kronfluence(folder: Path, **modules: np.ndarray) -> Path:
    """A folder of scores of kronfluence 1.0.1, `[n_test, n_train]` each."""
    folder.mkdir(parents=True)
    tensors = {name: torch.from_numpy(scores) for name, scores in modules.items()}
    save_file(tensors, folder / kronfluence.FILE, metadata={"damping_factor": "1e-08"})
    (folder / "factor_arguments.json").write_text('{"strategy": "ekfac"}')
    return folder
