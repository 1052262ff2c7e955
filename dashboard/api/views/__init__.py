"""One file a view: its answer, and how it is read from the study."""
