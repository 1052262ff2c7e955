"""Datamodels: sparse linear maps from training subsets to outputs, with or without a TRAK prior."""
