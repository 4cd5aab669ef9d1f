import math

import pytest

from pipelines.pretrain.config import Alarm
from pipelines.pretrain.noise_mask.alarm import PolicyAlarm


@pytest.mark.parametrize(
    ("entropy", "is_finite", "has_reward", "told"),
    [
        (-0.1, True, True, ""),
        (-0.1, False, True, "it gave numbers that are not finite"),
        (math.nan, True, True, "it gave numbers that are not finite"),
        (-0.1, True, False, "its reward or loss is not finite"),
        (-2.5, True, True, "its entropy fell to -2.5, below -2: masks hardly vary"),
        (0.0, True, True, "its entropy rose to 0, above -1e-06: it says nothing"),
    ],
)
def test_reason(entropy: float, is_finite: bool, has_reward: bool, told: str) -> None:
    assert PolicyAlarm(Alarm()).reason(entropy, is_finite=is_finite, has_reward=has_reward) == told


def test_alarm__comes_back_from_a_checkpoint() -> None:
    alarm, again = PolicyAlarm(Alarm()), PolicyAlarm(Alarm())
    alarm.is_stopped = True
    again.load_state_dict(alarm.state_dict(), strict=True)
    assert again.is_stopped
