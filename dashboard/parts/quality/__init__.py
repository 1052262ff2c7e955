"""The quality of scores."""
