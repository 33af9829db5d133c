"""What protects a run from broken data, and when.

- Before a start, in ``tools/train.py`` and ``tools/test.py``: ``coco.annotation_findings`` of COCO annotation files.
- On the whole data, when asked: ``scan``, the work of ``tools/check_data.py``, looks at every image and label map
  (``files.image_problem``), the annotations, the classes, and tries the pipelines.
- In every run with ``FaultyFilesHook``, whoever starts it: ``datasets/faults.py``. The ends of all evaluation files are
  looked at before the first iteration (``files.quick_problem``); in training a file that cannot be read is passed over.
"""
