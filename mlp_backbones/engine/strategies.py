"""How FlexibleRunner shards a model over processes."""

from mmengine._strategy import FSDPStrategy as MMEngineFSDPStrategy
from torch.distributed.fsdp import FullyShardedDataParallel

from ..registry import STRATEGIES


@STRATEGIES.register_module()
class FSDPStrategy(MMEngineFSDPStrategy):
    """mmengine's, which can resume: mmengine hands the optimizer's states to torch in an order that torch gave up in
    2.1. Arguments as there.
    """

    def model_state_dict(self) -> dict:
        # FSDP leaves marks on the tensors, which would be saved with them.
        return {k: v.detach() for k, v in super().model_state_dict().items()}

    def load_optim_state_dict(self, state_dict: dict) -> None:
        states = FullyShardedDataParallel.optim_state_dict_to_load(
            model=self.model, optim=self.optim_wrapper.optimizer, optim_state_dict=state_dict
        )
        self.optim_wrapper.load_state_dict(states)
