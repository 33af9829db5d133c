"""Pictures, and random weights in the places where a user has trained and published ones."""

import json
from pathlib import Path

import numpy as np
import torch

from helpers import CONFIGS, ROOT
from mlp_backbones.apis.zoo import build_model
from mlp_backbones.engine.config import find_config, load_config

MASK = str(CONFIGS / 'detection/maskrcnn_convmlp_s_fpn_shapes.py')
SEGMENTATION = str(CONFIGS / 'segmentation/sfp_gmlp_p8_shapes.py')
CLASSIFICATION = str(CONFIGS / 'classification/resmlp_p8_shapes.py')
PAGES = ROOT / 'docs/inference.md', ROOT / 'docs/visualization.md'


def save_weights(config: str, path: Path, **meta) -> Path:
    """Random weights of a config's model, as mmengine writes them."""
    torch.manual_seed(0)
    cfg = load_config(config)
    model = build_model(cfg)
    # Scores at random are below what is kept.
    if hasattr(model, 'bbox_head'):
        torch.nn.init.constant_(model.bbox_head.retina_cls.bias, -1)
    if hasattr(model, 'roi_head'):
        torch.nn.init.normal_(model.roi_head.bbox_head.fc_cls.weight, std=0.1)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(dict(state_dict=model.state_dict(), meta=meta), path)
    return path


def image(seed: int, height=128, width=160) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def own_data(shapes: Path, folder: Path) -> Path:
    """The validation images of the shapes under names of their own, and their annotation file with ids of its own."""
    data = json.loads((shapes / 'coco/annotations/instances_val2017.json').read_text())
    (folder / 'val2017').mkdir()
    for i, entry in enumerate(data['images']):
        name = f'photo {"edcba"[i]}.jpg'
        (folder / 'val2017' / name).write_bytes((shapes / 'coco/val2017' / entry['file_name']).read_bytes())
        entry.update(id=entry['id'] + 99, file_name=name)
    ids = {1: 3, 2: 7, 3: 9}
    for entry in data['categories']:
        entry['id'] = ids[entry['id']]
    for entry in data['annotations']:
        entry.update(category_id=ids[entry['category_id']], image_id=entry['image_id'] + 99)
    (folder / 'own.json').write_text(json.dumps(data))
    return folder / 'own.json'


def publish(home: Path, name: str) -> None:
    """Put random weights into torch's cache, where the published ones of a model would be."""
    path, entry = find_config(name)
    target = home / 'cache/hub/checkpoints' / Path(entry['Weights']).name
    if not target.exists():
        save_weights(path, target)
