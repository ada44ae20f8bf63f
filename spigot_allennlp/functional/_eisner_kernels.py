"""
Kernels of `eisner.py`.
"""

import math

import numpy as np

from spigot_allennlp.functional.runtime import FORBIDDEN, kernel


@kernel
def argmax(scores, lengths, single_root, start, stop, heads):
    tokens = scores.shape[1]
    complete = np.zeros((tokens, tokens))
    incomplete = np.zeros((tokens, tokens))
    split = np.zeros((tokens, tokens), np.int64)
    outermost = np.zeros((tokens, tokens), np.int64)
    stack = np.zeros((2 * tokens, 2), np.int64)
    for b in range(start, stop):
        n = lengths[b]
        if n < 2:
            continue
        s = scores[b]
        for j in range(1, n):
            for i in range(j - 1, -1, -1):
                best = -np.inf
                where = i
                for r in range(i, i + 1 if single_root and i == 0 else j):
                    value = complete[i, r] + complete[j, r + 1]
                    if value > best:
                        best = value
                        where = r
                split[i, j] = where
                incomplete[i, j] = best + max(s[j, i], FORBIDDEN)
                incomplete[j, i] = best + max(s[i, j], FORBIDDEN)
                best = -np.inf
                for m in range(i + 1, j + 1):
                    value = incomplete[i, m] + complete[m, j]
                    if value > best:
                        best = value
                        outermost[i, j] = m
                complete[i, j] = best
                best = -np.inf
                for m in range(i, j):
                    value = incomplete[j, m] + complete[m, i]
                    if value > best:
                        best = value
                        outermost[j, i] = m
                complete[j, i] = best
        top = 1
        stack[0, 0] = 0
        stack[0, 1] = n - 1
        while top > 0:
            top -= 1
            h = stack[top, 0]
            e = stack[top, 1]
            if h == e:
                continue
            m = outermost[h, e]
            heads[b, m] = h
            r = split[min(h, m), max(h, m)]
            stack[top, 0] = m
            stack[top, 1] = e
            stack[top + 1, 0] = min(h, m)
            stack[top + 1, 1] = r
            stack[top + 2, 0] = max(h, m)
            stack[top + 2, 1] = r + 1
            top += 3


@kernel
def inside_outside(
    scores, direction, lengths, single_root, start, stop, log_partition, marginals, derivative
):
    tokens = scores.shape[1]
    complete = np.zeros((tokens, tokens))
    incomplete = np.zeros((tokens, tokens))
    joined = np.zeros((tokens, tokens))
    d_complete = np.zeros((tokens, tokens))
    d_incomplete = np.zeros((tokens, tokens))
    d_joined = np.zeros((tokens, tokens))
    for b in range(start, stop):
        n = lengths[b]
        if n < 2:
            continue
        s = scores[b]
        g = direction[b]
        for j in range(1, n):
            for i in range(j - 1, -1, -1):
                last = i + 1 if single_root and i == 0 else j
                top = -np.inf
                for r in range(i, last):
                    top = max(top, complete[i, r] + complete[j, r + 1])
                total = 0.0
                change = 0.0
                for r in range(i, last):
                    weight = math.exp(complete[i, r] + complete[j, r + 1] - top)
                    total += weight
                    change += weight * (d_complete[i, r] + d_complete[j, r + 1])
                joined[i, j] = top + math.log(total)
                d_joined[i, j] = change / total
                incomplete[i, j] = joined[i, j] + max(s[j, i], FORBIDDEN)
                incomplete[j, i] = joined[i, j] + max(s[i, j], FORBIDDEN)
                d_incomplete[i, j] = d_joined[i, j] + g[j, i]
                d_incomplete[j, i] = d_joined[i, j] + g[i, j]
                for h, e in ((i, j), (j, i)):
                    low = i + 1 if h == i else i
                    high = j + 1 if h == i else j
                    top = -np.inf
                    for m in range(low, high):
                        top = max(top, incomplete[h, m] + complete[m, e])
                    total = 0.0
                    change = 0.0
                    for m in range(low, high):
                        weight = math.exp(incomplete[h, m] + complete[m, e] - top)
                        total += weight
                        change += weight * (d_incomplete[h, m] + d_complete[m, e])
                    complete[h, e] = top + math.log(total)
                    d_complete[h, e] = change / total
        log_partition[b] = complete[0, n - 1]
        if log_partition[b] <= FORBIDDEN / 2:
            log_partition[b] = -np.inf
            continue
        # From here on: the probability that a span is part of the tree, and its derivative.
        p_complete = np.zeros((n, n))
        p_incomplete = np.zeros((n, n))
        dp_complete = np.zeros((n, n))
        dp_incomplete = np.zeros((n, n))
        p_complete[0, n - 1] = 1.0
        for j in range(n - 1, 0, -1):
            for i in range(j):
                for h, e in ((i, j), (j, i)):
                    p = p_complete[h, e]
                    dp = dp_complete[h, e]
                    if p == 0.0 and dp == 0.0:
                        continue
                    for m in range(i + 1 if h == i else i, j + 1 if h == i else j):
                        weight = math.exp(incomplete[h, m] + complete[m, e] - complete[h, e])
                        change = d_incomplete[h, m] + d_complete[m, e] - d_complete[h, e]
                        p_incomplete[h, m] += p * weight
                        p_complete[m, e] += p * weight
                        dp_incomplete[h, m] += (dp + p * change) * weight
                        dp_complete[m, e] += (dp + p * change) * weight
                p = p_incomplete[i, j] + p_incomplete[j, i]
                dp = dp_incomplete[i, j] + dp_incomplete[j, i]
                for r in range(i, i + 1 if single_root and i == 0 else j):
                    weight = math.exp(complete[i, r] + complete[j, r + 1] - joined[i, j])
                    change = d_complete[i, r] + d_complete[j, r + 1] - d_joined[i, j]
                    p_complete[i, r] += p * weight
                    p_complete[j, r + 1] += p * weight
                    dp_complete[i, r] += (dp + p * change) * weight
                    dp_complete[j, r + 1] += (dp + p * change) * weight
                marginals[b, j, i] = p_incomplete[i, j]
                marginals[b, i, j] = p_incomplete[j, i] if i > 0 else 0.0
                derivative[b, j, i] = dp_incomplete[i, j]
                derivative[b, i, j] = dp_incomplete[j, i] if i > 0 else 0.0
