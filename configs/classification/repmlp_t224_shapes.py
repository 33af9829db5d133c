# RepMLP-T224 from scratch on the synthetic shapes; data and schedule as for ConvMLP-S, except the learning rate.
_base_ = './convmlp_s_shapes.py'
model = dict(
    backbone=dict(
        _delete_=True, type='mlp_backbones.RepMLP', arch='t224', img_size=64, out_indices=(3,), final_norm=True
    ),
)
optim_wrapper = dict(optimizer=dict(lr=5e-4))
