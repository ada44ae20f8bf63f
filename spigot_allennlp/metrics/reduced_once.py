from allennlp.training.metrics import Metric


class ReducedOnce(Metric):
    """
    A metric whose sums workers exchange in `get_metric` only, which all of them call in step. A worker may
    then count more batches than another, or none, and no worker waits for it; many of AllenNLP's metrics, `Average` and
    `CategoricalAccuracy` among them, exchange something in every call.

    The trainer evaluates a model all of whose metrics are of this kind on every instance, also where workers have
    different numbers of batches.
    """
