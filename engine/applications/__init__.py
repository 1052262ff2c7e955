"""What attributions are used for: brittle predictions, comparisons, unlearning, live queries."""
