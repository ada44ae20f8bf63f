"""
Projective dependency trees: the best, the log-partition function, marginals, samples and the k best.

Arcs are `(batch, dependents, heads)`: `scores[b, d, h]` scores the arc `h -> d`, index 0 is ROOT, and `mask`
is true for ROOT and the words, a prefix of each row. Row 0, the diagonal, padding and whatever stands there
are ignored; there outputs and gradients are 0. A score of -inf forbids an arc. `single_root` allows one word
only under ROOT. Scores are not checked: NaN makes a sentence's log-partition function and marginals NaN.

Everything takes O(n^3) time and O(n^2) memory for n words (Eisner 2000, "Bilexical grammars and their
cubic-time parsing algorithms"), in compiled kernels on the CPU, in as many threads as torch has, or, where
`routes.py` says so, in torch operations on a GPU (`batched.py`); results are on the device of the scores.
"""

from spigot_allennlp.functional.projective.argmax import projective_heads
from spigot_allennlp.functional.projective.inside_outside import projective_log_partition, projective_marginals
from spigot_allennlp.functional.projective.sample import projective_sample
from spigot_allennlp.functional.projective.top_k import projective_top_k

__all__ = [
    "projective_heads",
    "projective_log_partition",
    "projective_marginals",
    "projective_sample",
    "projective_top_k",
]
