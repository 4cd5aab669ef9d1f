import math

import pytest

from pipelines.pretrain.config import Alarm
from pipelines.pretrain.noise_mask.alarm import PolicyAlarm


@pytest.mark.parametrize(
    ("entropy", "is_output_finite", "is_loss_finite", "told"),
    [
        (-0.1, True, True, ""),
        (-0.1, False, True, "its outputs are not finite"),
        (math.nan, True, True, "its outputs are not finite"),
        (-0.1, True, False, "its reward or loss is not finite"),
        (-2.5, True, True, "its entropy fell to -2.5, below -2: masks hardly vary"),
        (0.0, True, True, "its entropy rose to 0, above -1e-06: masks are uniform noise"),
    ],
)
def test_stop_reason(entropy: float, is_output_finite: bool, is_loss_finite: bool, told: str) -> None:
    reason = PolicyAlarm(Alarm()).stop_reason(entropy, is_output_finite=is_output_finite, is_loss_finite=is_loss_finite)
    assert reason == told


def test_alarm__comes_back_from_a_checkpoint() -> None:
    alarm, again = PolicyAlarm(Alarm()), PolicyAlarm(Alarm())
    alarm.is_stopped = True
    again.load_state_dict(alarm.state_dict(), strict=True)
    assert again.is_stopped
