"""What comes from elsewhere: scores and runs of other tools, uploads, converted checkpoints."""
