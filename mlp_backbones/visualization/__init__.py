"""Figures of what a model computes."""
