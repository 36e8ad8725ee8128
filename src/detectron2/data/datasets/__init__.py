"""Datasets: formats and what is registered."""
