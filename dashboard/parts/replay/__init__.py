"""Exact scores of a prediction."""
