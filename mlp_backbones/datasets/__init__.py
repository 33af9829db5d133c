"""The synthetic shapes set, the embedded default for trying and testing every task."""

from .shapes import CLASSES, TASKS, make_shapes

__all__ = ['CLASSES', 'TASKS', 'make_shapes']
