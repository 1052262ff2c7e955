"""Exact answers for predictions: replay as a job, what it found, and how smooth training is."""
