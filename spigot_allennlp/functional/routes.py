"""
Where scores on a GPU are worked on: there, by vectorized torch operations, or on the CPU, by the compiled kernels.
"""

from typing import Dict, NamedTuple

import torch

# Seconds to launch one operation on a GPU, and the least that the host route waits for: three copies that the two
# sides synchronise on. Bytes a second between them, at best.
_LAUNCH = 10e-6
_WAIT = 50e-6
_BANDWIDTH = 20e9


class _Cost(NamedTuple):
    """
    # Parameters

    launches, launches_per_token : `int`
        Kernel launches of the batched path.
    device, host : `float`
        Nanoseconds for one unit of work, of the batched path and of one thread of the compiled kernels.
    arrays : `int`
        Number of arrays of the scores' size that travel to the CPU and back.
    cubic : `bool`, optional (default = `True`)
        Whether the unit of work is one score times one token (`n^3` for a sentence), or one score.
    """

    launches: int
    launches_per_token: int
    device: float
    host: float
    arrays: int
    cubic: bool = True


_COSTS: Dict[str, _Cost] = {
    "projective argmax": _Cost(60, 29, device=0.008, host=0.065, arrays=1),
    "projective marginals": _Cost(60, 46, device=0.1, host=0.16, arrays=2),
    "gradient of projective marginals": _Cost(60, 63, device=0.25, host=0.4, arrays=3),
    "matrix-tree log-partition": _Cost(120, 0, device=0.09, host=0.2, arrays=1),
    "matrix-tree marginals": _Cost(120, 0, device=0.09, host=0.3, arrays=2),
    "gradient of matrix-tree marginals": _Cost(170, 0, device=0.2, host=0.65, arrays=3),
    "simplex projection": _Cost(24, 0, device=0.4, host=1.5, arrays=2, cubic=False),
}


def batched_on_device(operation: str, scores: torch.Tensor) -> bool:
    """
    The one rule: whether `operation` on these scores takes the batched path, on the scores' own device, or the host
    route: to the CPU and back. It takes the one that should be faster, by an estimate of both:

        batched   launches * 10 us + work * device
        host      50 us + bytes / (20 GB/s) + work * host / threads

    **None of this was measured on a GPU.** The launches are counted, and 10 us for each are what a slow host needs.
    `device` follows from the bytes that the operations read and write, at 1 TB/s, and for matrices from 100 GFLOP/s
    in float64. `host` are the lowest times over all sizes, so that in doubt the host route is taken: the bar is that
    nothing is slower than the host route. The figures of the two gradients were measured for this table; the other
    operations are from `benchmarks/inference.md`; the argmax rests on both. `python benchmarks/gpu.py` measures both
    ways on a GPU, beside what the rule chooses; the numbers above are to be replaced by what it finds.

    On the CPU the compiled kernels are the reference, and always taken. So they are where torch is told to use
    deterministic algorithms only, which the batched path does not promise to be made of, and on devices other than
    CUDA's (some have no float64).

    Operations that are not in the table always take the host route. Chu-Liu-Edmonds, the k best and Wilson's samples
    branch on what they find, differently in every sentence; exact sampling of projective trees walks a chart top down
    in numbers of extended range, and the active set of a projection solves a small dense system in each of dozens of
    rounds: as torch operations all of these are hundreds of launches for a few floating-point operations each. The
    same goes for the dynamic programs of `hypergraphs.py`. Those that are made of a fixed number of torch operations
    anyway (`independent.py`, `subsets.py`, sums over tag sequences, box and budget) run where the scores are, without a
    choice.

    # Parameters

    operation : `str`
        Key of the table.
    scores : `torch.Tensor`
        `(..., n, n)`, or `(..., n)` for the simplex.
    """
    if scores.device.type != "cuda" or torch.are_deterministic_algorithms_enabled():
        return False
    cost = _COSTS[operation]
    tokens, work = scores.size(-1), scores.numel()
    moved = cost.arrays * work * scores.element_size()
    if cost.cubic:
        work *= tokens
    batched = _LAUNCH * (cost.launches + cost.launches_per_token * tokens) + 1e-9 * cost.device * work
    host = _WAIT + moved / _BANDWIDTH + 1e-9 * cost.host * work / torch.get_num_threads()
    return batched < host
