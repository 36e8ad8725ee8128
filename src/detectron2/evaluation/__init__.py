"""Evaluation of predictions against ground truth."""
