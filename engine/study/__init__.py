"""Read a study's folder. Nothing here imports torch."""
