"""Heads on regions of interest."""
