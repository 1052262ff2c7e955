"""Texts: cards, searching, likeness in words, and the tokens that carry an influence."""
