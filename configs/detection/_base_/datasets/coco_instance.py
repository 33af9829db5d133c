# COCO 2017 with masks.
_base_ = './coco_detection.py'
train_pipeline = _base_.train_pipeline
train_pipeline[-4].update(with_mask=True)  # LoadAnnotations
test_pipeline = _base_.test_pipeline
test_pipeline[-2].update(with_mask=True)  # LoadAnnotations
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
val_evaluator = dict(metric=['bbox', 'segm'])
test_evaluator = dict(metric=['bbox', 'segm'])
