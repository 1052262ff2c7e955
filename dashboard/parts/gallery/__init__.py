"""Examples as cards, and what explains a prediction."""
