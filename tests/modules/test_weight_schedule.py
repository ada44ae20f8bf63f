import pytest
import torch
from allennlp.common import Params
from allennlp.common.checks import ConfigurationError

from spigot_allennlp.modules import ConstantWeight, LinearWeight, WeightSchedule


def values(schedule: WeightSchedule, number: int) -> list:
    return [round(float(schedule()), 6) for _ in range(number)]


def test_linear():
    schedule = WeightSchedule.from_params(Params({"type": "linear", "start": 1.0, "end": 0.2, "num_steps": 4}))
    assert values(schedule, 6) == [1.0, 0.8, 0.6, 0.4, 0.2, 0.2]
    assert values(LinearWeight(0.0, 3.0, 1), 3) == [0.0, 3.0, 3.0]


def test_constant_is_the_default():
    schedule = WeightSchedule.from_params(Params({"weight": 0.3}))
    assert isinstance(schedule, ConstantWeight)
    assert values(schedule, 2) == [0.3, 0.3]


def test_evaluation_does_not_move_on():
    schedule = LinearWeight(1.0, 0.0, 4)
    schedule()
    schedule.eval()
    assert values(schedule, 3) == [0.75] * 3
    schedule.train()
    assert values(schedule, 2) == [0.75, 0.5]


def test_the_step_is_saved():
    schedule = LinearWeight(1.0, 0.0, 4)
    values(schedule, 2)
    other = LinearWeight(1.0, 0.0, 4)
    other.load_state_dict(schedule.state_dict())
    assert values(other, 2) == [0.5, 0.25]


@pytest.mark.parametrize(
    "params, message",
    [
        ({"type": "constant", "weight": -1.0}, "weight is -1.0; valid: a number >= 0"),
        ({"type": "constant", "weight": float("nan")}, "weight is nan"),
        ({"type": "linear", "start": float("inf"), "end": 0.0, "num_steps": 3}, "start is inf"),
        ({"type": "linear", "start": 1.0, "end": -0.5, "num_steps": 3}, "end is -0.5"),
        ({"type": "linear", "start": 1.0, "end": 0.0, "num_steps": 0}, "num_steps is 0; valid: an integer >= 1"),
    ],
)
def test_refused(params, message):
    with pytest.raises(ConfigurationError) as error:
        WeightSchedule.from_params(Params(params))
    assert message in str(error.value)


def test_on_a_device_and_in_half_precision_the_step_stays_an_integer():
    schedule = LinearWeight(1.0, 0.0, 3000).half()
    schedule.step += 2049  # Not to be told from 2048 in half precision.
    assert values(schedule, 1) == pytest.approx([1 - 2049 / 3000], abs=1e-6)
    assert schedule.step.dtype == torch.long
