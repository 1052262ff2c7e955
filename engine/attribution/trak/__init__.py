"""TRAK: attribution by the gradients of trained models (Park et al. 2023, arXiv 2303.14186).

    plan, make_plan              how each parameter's gradient is computed
    backward, layer_gradients    one backward pass, and the rule for each kind of layer
    gradients                    exact per-example gradients
    projection, make_projection  random projections that never form the gradient
    solver, choose_solver        which of the solvers a study uses
    kernel, dual                 solve with the `[n_train, n_train]` kernel
    primal                       solve with the `[p, p]` Gram matrix of projected gradients
    tuning                       damping, tempering and soft threshold, chosen by LDS
    new_examples                 attribution of examples that are not in the study
    removal_direction            the effect of a removal on every output at once

Importing this package does not import torch.
"""
