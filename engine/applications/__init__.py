"""Applications of attributions: brittle predictions, comparisons, unlearning, live queries."""
