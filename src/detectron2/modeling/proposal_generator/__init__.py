"""Proposal generators."""
