"""Brittle predictions: their support, data issues and tables."""
