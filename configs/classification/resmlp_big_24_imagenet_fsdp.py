# ResMLP-B24/8 with its parameters, gradients and optimizer states sharded over the GPUs (FSDP). AdamW instead of LAMB,
# which needs unsharded tensors; the learning rate is PaddleViT's, 1e-3 for 512 images.
_base_ = './resmlp_big_24_imagenet.py'
runner_type = 'FlexibleRunner'
strategy = dict(
    type='mlp_backbones.FSDPStrategy',
    model_wrapper=dict(
        type='MMFullyShardedDataParallel',
        use_orig_params=True,
        # One unit for the channel MLP of each block (4.7 million parameters), one for the rest.
        auto_wrap_policy=dict(type='torch.distributed.fsdp.wrap.size_based_auto_wrap_policy', min_num_params=4_000_000),
    ),
    state_dict_cfg='full',  # unsharded checkpoints
)
optim_wrapper = dict(optimizer=dict(_delete_=True, type='AdamW', lr=4e-3, weight_decay=0.1))
# With save_best, mmengine's FlexibleRunner saves the last checkpoint again with the number of the next epoch, which
# --resume would then skip.
default_hooks = dict(checkpoint=dict(save_best=None))
