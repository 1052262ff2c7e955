"""Cached reads of a study for the pages."""
