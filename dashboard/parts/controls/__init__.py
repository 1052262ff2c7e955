"""Controls that choose what is shown, and download buttons."""
