"""Helpers that the rest of the package builds on, one module a subject."""
