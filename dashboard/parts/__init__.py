"""What pages are put together from, one room a kind."""
