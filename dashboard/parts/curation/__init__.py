"""The training set as a curator sees it: cards, a table, and the review of suspect labels."""
