"""Write score files in the formats of traker and kronfluence, without those tools.

`test_importing.py` compares the formats with the tools' own files where the tools are installed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from engine.exchange.importing import kronfluence


def saved(path: Path, array: Any) -> Path:
    """Write `array` in `.npy` format under any file name, and return the path."""
    with path.open("wb") as file:
        np.save(file, array, allow_pickle=True)
    return path


def write_traker(
    folder: Path, scores: np.ndarray, experiment: str = "test", final: int = 1
) -> Path:
    """Write a save_dir of traker 0.3.2 with one experiment; `scores` are `[n_test, n_train]`."""
    (folder / "scores").mkdir(parents=True)
    saved(folder / "scores" / f"{experiment}.mmap", scores.T.copy())
    metadata = {"JL dimension": 16, "JL matrix type": "normal", "train set size": scores.shape[1]}
    (folder / "metadata.json").write_text(json.dumps(metadata))
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
    """Write a scores folder of kronfluence 1.0.1 with one matrix `[n_test, n_train]` per module."""
    folder.mkdir(parents=True)
    tensors = {name: torch.from_numpy(scores) for name, scores in modules.items()}
    save_file(tensors, folder / kronfluence.FILE, metadata={"damping_factor": "1e-08"})
    (folder / "factor_arguments.json").write_text('{"strategy": "ekfac"}')
    return folder
