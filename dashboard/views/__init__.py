"""The pages, one file each, read from top to bottom like the page."""
