"""Jobs: how they are started, and their progress."""
