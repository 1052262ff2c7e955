"""Datamodels: sparse linear maps from training subsets to outputs, alone and with TRAK as prior."""
