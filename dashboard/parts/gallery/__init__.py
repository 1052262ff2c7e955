"""Galleries of example cards, and the explanation of a prediction."""
