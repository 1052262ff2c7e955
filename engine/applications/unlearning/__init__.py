"""Unlearning: make a model predict as if it was never trained on some examples, and prove it."""
