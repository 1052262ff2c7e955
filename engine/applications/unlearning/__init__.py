"""Make a model forget: say what one never trained on some examples would, and prove it."""
