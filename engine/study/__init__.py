"""Reading a study's folder. Nothing here imports torch."""
