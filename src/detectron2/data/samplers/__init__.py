"""Samplers of dataset indices."""
