"""TRAK: gradients, projections, kernels and the solve.

Importing this package does not import torch.
"""
