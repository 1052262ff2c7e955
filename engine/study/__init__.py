"""The reader of a study's folder. It imports no torch."""
