"""The frame of a page: header, headings, messages, and build progress."""
