"""Which training examples a prediction hangs on.

gradients → projection → trak (primal) or kernel → trak (dual); exact is the tests' oracle. Scores
are read through `engine.attribution.scores`. Importing this package does not import torch.
"""
