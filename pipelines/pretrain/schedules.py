"""Learning rates of the stages, as factors by epoch (0-based).

The policy's is ``vision_core.schedules.cosine`` of the epoch.
"""

_DECAY_EPOCHS = 30
_WARMUP_EPOCHS = 7
_WARMUP_START = 0.01


def stepped(epoch: int) -> float:
    """The classifier's in the first stage: divided by ten every 30 epochs."""
    return 0.1 ** (epoch // _DECAY_EPOCHS)


def finetuning(epoch: int) -> float:
    """Linear from 0.01 to 1 over 7 epochs, then divided by ten every 30 epochs after that."""
    if epoch < _WARMUP_EPOCHS:
        return _WARMUP_START + (1 - _WARMUP_START) * epoch / _WARMUP_EPOCHS
    return stepped(epoch - _WARMUP_EPOCHS)
