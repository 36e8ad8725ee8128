"""Datasets, and what makes batches of them."""
