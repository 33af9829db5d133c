"""Weights from elsewhere."""

from .dialects import REPMLP, RESMLP, Dialect, repmlp_from_mmpretrain, resmlp_from_deit

__all__ = ['REPMLP', 'RESMLP', 'Dialect', 'repmlp_from_mmpretrain', 'resmlp_from_deit']
