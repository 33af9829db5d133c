default_scope = 'mmpretrain'
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=100),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='mlp_backbones.CheckpointHook', interval=1, max_keep_ckpts=3, save_best='auto'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='VisualizationHook', enable=False),
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
visualizer = dict(type='UniversalVisualizer', vis_backends=vis_backends)
log_level = 'INFO'
load_from = None
resume = False
randomness = dict(seed=42)
# For `tools/test.py --tta`: mean score of all views, which are the image and its mirror without a `tta_pipeline`.
tta_model = dict(type='AverageClsScoreTTA')
