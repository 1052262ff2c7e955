"""Unlearning: make a model that says what one never trained on some examples would, and prove it."""
