"""Controls that choose what is shown, and buttons that take it away."""
