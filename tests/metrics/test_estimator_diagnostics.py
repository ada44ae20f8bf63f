import math

import torch

from spigot_allennlp.metrics import EstimatorDiagnostics

NAN = float("nan")


def test_what_the_backward_pass_fills_in_counts():
    metric = EstimatorDiagnostics(["distance", "changed"])
    distance = torch.full((3,), NAN)
    metric({"distance": distance, "changed": torch.tensor([1.0, 0.0, NAN])})
    # As a backward pass does.
    distance.copy_(torch.tensor([1.0, NAN, 3.0]))
    metric({"distance": torch.tensor([5.0]), "changed": torch.tensor([1.0])})
    assert metric.get_metric() == {"_distance": 3.0, "_changed": 2 / 3}
    # Nothing counts twice.
    assert metric.get_metric(reset=True) == {"_distance": 3.0, "_changed": 2 / 3}
    assert all(math.isnan(value) for value in metric.get_metric().values())


def test_evaluation_has_none():
    metric = EstimatorDiagnostics(["distance"])
    metric({})
    assert math.isnan(metric.get_metric()["_distance"])


def test_reset_forgets_what_was_not_yet_counted():
    metric = EstimatorDiagnostics(["distance"])
    metric({"distance": torch.ones(2)})
    metric.reset()
    assert math.isnan(metric.get_metric()["_distance"])
