"""Backbones, necks and their layers."""

from .backbones import GMLP, ConvMLP, RepMLP, ResMLP
from .necks import SimpleFeaturePyramid

__all__ = ['GMLP', 'ConvMLP', 'RepMLP', 'ResMLP', 'SimpleFeaturePyramid']
