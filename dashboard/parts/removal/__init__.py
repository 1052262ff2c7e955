"""Choosing training examples to remove, and what their removal does."""
