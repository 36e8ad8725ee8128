"""Models and what they are made of."""
