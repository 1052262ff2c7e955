"""Which training examples a prediction depends on, and how much.

    scores      the score matrix τ `[n_test, n_train]`, read block by block
    trak        TRAK: gradients, projections, kernels and linear solves
    datamodels  sparse linear models from subset runs to outputs, alone and with TRAK as a prior
    search      the attribution space, nearest neighbors, maps
    evaluation  how far scores can be trusted: LDS, calibration, the verdict

Importing this package does not import torch.
"""
