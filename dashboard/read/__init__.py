"""What pages ask of a study, kept in memory while its files last."""
