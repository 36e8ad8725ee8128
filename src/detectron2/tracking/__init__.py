"""Trackers of instances over video frames."""
