"""The command palette: find a page, an example, a class or a saved set by typing."""
