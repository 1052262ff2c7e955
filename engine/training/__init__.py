"""Training: the learning algorithm, checkpoints, and outputs of trained models."""
