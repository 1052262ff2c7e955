"""What frames a page: headings, messages, what is still being built."""
