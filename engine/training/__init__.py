"""Learning algorithms: a training set in, a model out."""
