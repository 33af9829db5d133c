# ConvMLP-S on the official split of Flowers-102: `jpg/`, `imagelabels.mat` and `setid.mat` under `data_root`. Trained
# on the 2,040 images of its training and validation sets, tested on 6,149. A config of ours, with the recipe of the
# other split. No result of ConvMLP on the official split is published.
_base_ = './convmlp_s_flowers102.py'
train_dataloader = dict(
    batch_sampler=dict(drop_last=False),  # of so few images none is left out
    dataset=dict(
        _delete_=True,
        type='Flowers102',
        data_root=_base_.data_root,
        split='trainval',
        pipeline=_base_.train_pipeline,
    ),
)
val_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='Flowers102',
        data_root=_base_.data_root,
        split='test',
        pipeline=_base_.test_pipeline,
    ),
)
test_dataloader = val_dataloader
