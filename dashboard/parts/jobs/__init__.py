"""Long work: how it is started, and how far it is."""
