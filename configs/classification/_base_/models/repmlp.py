# BatchNorm, mean over positions, linear.
model = dict(
    type='ImageClassifier',
    _scope_='mmpretrain',  # for any builder, such as mmengine.hub
    backbone=dict(type='mlp_backbones.RepMLP', arch='t224', out_indices=(3,), final_norm=True),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=1000,
        in_channels=512,
        init_cfg=None,  # torch's, as in the original
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
    ),
)
