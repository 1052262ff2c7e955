"""Parts of the page Unlearn."""
