"""Training examples to leave out, and what that does."""
