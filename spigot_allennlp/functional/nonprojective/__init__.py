"""
Non-projective dependency trees: spanning arborescences from ROOT.

Everywhere, `scores` is `(batch, tokens, tokens)` with `scores[b, d, h]` the score of the arc `h -> d`,
token 0 is ROOT, and `mask` is `(batch, tokens)`, true for ROOT and for real tokens, a prefix of each row. A
score of -inf forbids the arc. With `single_root`, exactly one word has ROOT as its head, else at least one.
All is computed in float64, whatever the type of the scores, in compiled kernels on the CPU or, where
`routes.py` says so, in torch operations on a GPU (`batched.py`); results are on the device of
the scores.
"""

from spigot_allennlp.functional.nonprojective.maximum import nonprojective_heads, nonprojective_top_k
from spigot_allennlp.functional.nonprojective.sample import nonprojective_sample
from spigot_allennlp.functional.nonprojective.sums import nonprojective_log_partition, nonprojective_marginals

__all__ = [
    "nonprojective_heads",
    "nonprojective_log_partition",
    "nonprojective_marginals",
    "nonprojective_sample",
    "nonprojective_top_k",
]
