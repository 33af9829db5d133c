"""A classification dataset of one folder per class, whose labels follow the order of the given class names."""

from mmpretrain.datasets.custom import CustomDataset as MMPretrainCustomDataset
from mmpretrain.datasets.custom import find_folders

from ..registry import DATASETS
from ..utils.errors import DataError


@DATASETS.register_module()
class CustomDataset(MMPretrainCustomDataset):
    """mmpretrain's ``CustomDataset`` in which the label of a folder is the index of its name in ``classes``.

    mmpretrain's labels the folders in alphabetical order, so that of folders named 1 to 102 the second class would be
    folder 10. Without ``classes``, or with an annotation file, both are the same. The arguments are mmpretrain's.

    Raises:
        DataError: The names of the folders are not the class names.
    """

    def load_data_list(self) -> list[dict]:
        """Return a dict for each image, with its path and label."""
        if self.ann_file or not self.with_label or self.CLASSES is None:
            return super().load_data_list()
        folders, _ = find_folders(self.img_prefix)
        labels = {name: label for label, name in enumerate(self.CLASSES)}
        missing = [name for name in labels if name not in folders]
        unknown = [name for name in folders if name not in labels]
        if missing or unknown:
            raise DataError(
                f'{self.img_prefix} must have a folder for each class name and no other: '
                f'missing {", ".join(missing) or "none"}; unknown {", ".join(unknown) or "none"}'
            )
        data_list = super().load_data_list()
        self.folder_to_idx: dict[str, int] = labels
        return [{**info, 'gt_label': labels[folders[info['gt_label']]]} for info in data_list]
