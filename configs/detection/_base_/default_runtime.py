default_scope = 'mmdet'
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='mlp_backbones.CheckpointHook', interval=1, max_keep_ckpts=3),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='DetVisualizationHook'),
    # Fault tolerance; docs/reliability.md says how a hook is removed.
    exact_resume=dict(type='mlp_backbones.ExactResumeHook'),  # seeds every iteration
    non_finite=dict(type='mlp_backbones.StopAtNonFiniteHook'),
    interrupt=dict(type='mlp_backbones.InterruptHook'),
    # Unreadable images and label maps are passed over in training, by default up to 100 or a tenth of the images.
    faulty_files=dict(type='mlp_backbones.FaultyFilesHook', max_faulty_files=None),
    adapt_checkpoint=dict(type='mlp_backbones.AdaptCheckpointHook'),  # load_from takes any release's file
)
env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    # Communication timeout in seconds: how long a run waits for a machine that lost its connection.
    dist_cfg=dict(backend='nccl', timeout=600),
)
vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='DetLocalVisualizer', vis_backends=vis_backends, name='visualizer')
log_processor = dict(type='LogProcessor', window_size=50, by_epoch=True)
log_level = 'INFO'
load_from = None
resume = False
randomness = dict(seed=42)
# For `tools/test.py --tta`: merges the boxes of all views, but not masks.
tta_model = dict(type='DetTTAModel', tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100))
