"""Choose which output of an example is explained, and say what its scores answer."""
