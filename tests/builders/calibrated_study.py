"""A small study whose few subset runs are too few to judge by, given the units they hint at."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from engine import Study, store
from engine.attribution.evaluation.calibration import calibrate
from engine.attribution.evaluation.effect_sizes import TYPICAL
from engine.attribution.evaluation.quality import Calibration, Measured
from engine.build.stages.quality import predict
from engine.store import layout
from engine.store.layout import TRAK
from engine.study.score_matrices import read_score_matrix


def give_units(study: Study, algorithm: str = "mlp") -> Study:
    """Write into the study that its TRAK scores are the default and calibrated, by all its runs."""
    bank, quality = study.bank(algorithm), study.quality(algorithm)
    assert quality is not None
    predicted = predict(read_score_matrix(study, algorithm, TRAK), bank.masks)
    found = calibrate(predicted, np.ascontiguousarray(bank.test.T))
    assert found is not None
    assert found.slope > 0
    slope = Measured(found.slope, 0.9 * found.slope, 1.1 * found.slope)
    methods = dict(quality.methods)
    methods[TRAK] = replace(
        methods[TRAK],
        lds=Measured(0.2, 0.1, 0.3),
        calibration=Calibration(slope, 0.2),
        effects=TYPICAL,
    )
    changed = replace(quality, methods=methods, preferred=TRAK)
    scores = read_score_matrix(study, algorithm, TRAK).rows(np.arange(study.dataset.n_test))
    path = layout.predicted_file(study.root, algorithm, TRAK)
    arrays = {name: np.array(array) for name, array in store.read_tensors(path).items()}
    arrays["mean_square"] = np.square(scores, dtype=np.float64).mean(axis=1)
    store.write_tensors(path, arrays, store.tensors_fingerprint(path))
    path = layout.quality_file(study.root, algorithm)
    store.write_json(path, changed.to_dict(), store.json_fingerprint(path))
    return study
