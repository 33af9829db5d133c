"""The backbones, one family a file."""

from .convmlp import ConvMLP

__all__ = ['ConvMLP']
