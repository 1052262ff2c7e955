"""Import scores and run banks of other tools, accept uploaded models, and convert checkpoints."""
