"""
Compiled kernels over spanning arborescences, one sentence at a time. Used by `spanning_tree` only.

Scores come as float64 of shape (batch, tokens, tokens) in (dependent, head) order, `lengths` holds the
number of words of each sentence, and every function handles the sentences `start` to `stop` of the batch.
"""

import math

import numpy as np

from spigot_allennlp.functional.runtime import FORBIDDEN, kernel

# ----------------------------------------------------------------------------------------------------------
# Maximum
# ----------------------------------------------------------------------------------------------------------

# Minus infinity stays a value that compares as it should; only NaN is assumed away, which vectorises the
# maxima.
_ORDERED = {"nnan", "nsz"}

_UNSEEN, _ON_PATH, _DONE = 0, 1, 2


@kernel
def _read_arcs(scores, arcs):
    """
    `arcs[d, h]`: the score where the arc is allowed, else -inf (also for the diagonal, ROOT's row and NaN).
    """
    size = arcs.shape[0]
    arcs[0, :] = -np.inf
    for dependent in range(1, size):
        row = arcs[dependent]
        given = scores[dependent]
        for head in range(size):
            score = given[head]
            row[head] = min(score, -FORBIDDEN) if score > FORBIDDEN else -np.inf
        row[dependent] = -np.inf


@kernel(fastmath=_ORDERED)
def _maximum(row):
    best = -np.inf
    for i in range(row.size):
        best = max(best, row[i])
    return best


@kernel(fastmath=_ORDERED)
def _maximum_arborescence(rows, single_root, heads, links, values):
    """
    Chu-Liu-Edmonds with Tarjan's path growing on a dense graph, in O(n^2).

    A node is a word or, from `size` on, a contracted cycle. `rows[v, h]` is the gain of the best arc from
    the original node `h` into `v`, over what the arcs inside `v` lose by it; rows of contracted nodes are
    kept, so that expansion finds which of the cycle's nodes an arc enters by looking for the same number
    again.

    A single root is a lexicographic order on (fewest arcs from ROOT, highest score), which Chu-Liu-Edmonds
    is as correct for as for numbers: an arc from ROOT is chosen only where a node has no other, that is,
    when all that can be contracted is.

    `rows` has 2 * size rows, of which the first `size` are given. Returns whether there is a tree.
    """
    size = rows.shape[1]
    state, group, chosen, child, sibling, first, last, following, path = links
    state[:] = _UNSEEN
    for v in range(size):
        group[v] = v
        child[v] = -1
        first[v] = v
        last[v] = v
        following[v] = -1
    state[0] = _DONE
    root_taken = False
    lowest = 1 if single_root else 0
    num_nodes = size

    for word in range(1, size):
        if state[group[word]] == _DONE:
            continue
        depth = 1
        path[0] = group[word]
        state[path[0]] = _ON_PATH
        while depth > 0:
            v = path[depth - 1]
            row = rows[v]
            best = _maximum(row[lowest:])
            if best == -np.inf:
                if not single_root or root_taken or row[0] == -np.inf:
                    return False
                root_taken = True
                chosen[v] = 0
                entered = 0
            else:
                head = lowest
                while row[head] != best and head < size - 1:
                    head += 1
                chosen[v] = head
                values[v] = best
                entered = group[head]
            if state[entered] == _DONE:
                for i in range(depth):
                    state[path[i]] = _DONE
                depth = 0
            elif state[entered] == _UNSEEN:
                state[entered] = _ON_PATH
                path[depth] = entered
                depth += 1
            else:
                cycle = num_nodes
                num_nodes += 1
                merged = rows[cycle]
                merged[:] = -np.inf
                first[cycle] = -1
                child[cycle] = -1
                while True:
                    depth -= 1
                    part = path[depth]
                    source = rows[part]
                    value = values[part]
                    for h in range(size):
                        merged[h] = max(merged[h], source[h] - value)
                    sibling[part] = child[cycle]
                    child[cycle] = part
                    if first[cycle] < 0:
                        first[cycle] = first[part]
                    else:
                        following[last[cycle]] = first[part]
                    last[cycle] = last[part]
                    if part == entered:
                        break
                member = first[cycle]
                while member >= 0:
                    group[member] = cycle
                    merged[member] = -np.inf
                    member = following[member]
                state[cycle] = _ON_PATH
                path[depth] = cycle
                depth += 1

    for cycle in range(num_nodes - 1, size - 1, -1):
        head = chosen[cycle]
        part = child[cycle]
        while sibling[part] >= 0 and rows[part, head] - values[part] != rows[cycle, head]:
            part = sibling[part]
        chosen[part] = head
    heads[0] = -1
    heads[1:] = chosen[1:size]
    return True


@kernel
def _any_tree(heads):
    """
    Where every tree has a forbidden arc: all words under the first, so that callers see a tree that scores
    -inf.
    """
    heads[0] = -1
    for word in range(1, heads.size):
        heads[word] = min(word - 1, 1)


@kernel
def best_heads(scores, single_root, heads):
    """The best tree of one sentence: `heads`, `(tokens,)`, given as -1; `scores` may be padded."""
    size = len(heads)
    if size < 2:
        return
    rows = np.empty((2 * size, size))
    links = np.empty((9, 2 * size), np.int64)
    values = np.empty(2 * size)
    _read_arcs(scores, rows[:size])
    if not _maximum_arborescence(rows, single_root, heads, links, values):
        _any_tree(heads)


@kernel
def best_tree(scores, lengths, single_root, heads, start, stop):
    """Fill `heads` (batch, tokens), given as -1, with the best tree."""
    for b in range(start, stop):
        size = lengths[b] + 1
        best_heads(scores[b], single_root, heads[b, :size])


@kernel
def best_trees(scores, lengths, k, single_root, heads, start, stop):
    """
    Fill `heads` (batch, k, tokens), given as -1, with the k best trees in order, by Lawler's partition.

    The trees other than the best of a set are those that agree with it on the words before i and differ at
    i, for every i: disjoint sets, whose best trees are candidates. A candidate's own set is described by
    the word it deviates at, the heads forbidden there, and its heads before that word, which are fixed. No
    more than k candidates are ever needed.
    """
    for b in range(start, stop):
        size = lengths[b] + 1
        if size == 1:
            continue
        arcs = np.empty((size, size))
        rows = np.empty((2 * size, size))
        links = np.empty((9, 2 * size), np.int64)
        values = np.empty(2 * size)
        _read_arcs(scores[b], arcs)
        candidates = np.empty((k, size), np.int64)
        totals = np.full(k, -np.inf)
        deviations = np.empty(k, np.int64)
        banned = np.zeros((k, size), np.bool_)
        tree = np.empty(size, np.int64)
        trial = np.empty(size, np.int64)
        ban = np.empty(size, np.bool_)

        rows[:size] = arcs
        if _maximum_arborescence(rows, single_root, candidates[0], links, values):
            totals[0] = 0.0
            deviations[0] = 1
        for rank in range(k):
            slot = np.argmax(totals)
            if totals[slot] == -np.inf:
                break
            tree[:] = candidates[slot]
            ban[:] = banned[slot]
            deviation = deviations[slot]
            totals[slot] = -np.inf
            heads[b, rank, :size] = tree
            if rank == k - 1:
                break
            for word in range(deviation, size):
                if word > deviation:
                    ban[:] = False
                ban[tree[word]] = True
                rows[:size] = arcs
                for fixed in range(1, word):
                    rows[fixed, :] = -np.inf
                    rows[fixed, tree[fixed]] = arcs[fixed, tree[fixed]]
                for head in range(size):
                    if ban[head]:
                        rows[word, head] = -np.inf
                if not _maximum_arborescence(rows, single_root, trial, links, values):
                    continue
                total = 0.0
                for i in range(1, size):
                    total += arcs[i, trial[i]]
                slot = np.argmin(totals)
                if total > totals[slot]:
                    totals[slot] = total
                    candidates[slot] = trial
                    deviations[slot] = word
                    banned[slot] = ban


# ----------------------------------------------------------------------------------------------------------
# Sums over all trees
# ----------------------------------------------------------------------------------------------------------
#
# The matrix-tree theorem without a subtraction. A word's heads are the steps of a random walk that goes
# from a word to one of its heads with probability proportional to the arc's weight, and stops at ROOT.
# Eliminating word k from the graph,
#
#     p = sum_j w[k, j],    w[i, j] += w[i, k] * w[k, j] / p    (i, j left, i != j),
#
# leaves the weights of the walk watched only outside k, and divides the sum over trees by p: this is
# Gaussian elimination on the Laplacian, whose diagonal is never stored but summed anew (Grassmann, Taksar &
# Heyman 1985), so that every number is a sum of products of positive numbers and has a small *relative*
# error, whatever the condition of the Laplacian.
#
# The marginal of an arc h -> d is proportional, over h, to w[d, h] * E[h, d], where E[h, d] is the
# probability that the walk from h stops at ROOT without meeting d. The textbook's difference of two entries
# of the inverse is that number, and cancels; eliminating all words but d gives it without a difference, and
# dividing and conquering does that for all d in O(n^3).
#
# A single root is the limit of weights t * w[d, ROOT] for t -> 0: the leading power of t is the sum over
# trees with one arc from ROOT, and to leading order p leaves that arc out.
#
# Gradients of marginals come from the same code with complex numbers: a positive number with an
# infinitesimal imaginary part is a dual number (Squire & Trapp 1998), and sums of products of those are
# stable too.
#
# Numbers have two formats: plain ones, and mantissas beside exponents of 2^256 for weights which underflow.
# The plain run checks each factor against `_TINY`, so that no product can have underflown, and gives up
# otherwise.

_TINY = 1e-130
_LOG_TINY = math.log(_TINY)
_RADIX = 2.0**256
_INVERSE_RADIX = 2.0**-256
_LOG_RADIX = 256 * math.log(2.0)
_UPPER = 2.0**128
_LOWER = 2.0**-128
# Exponents: of zero, and of the t above; every sum of real exponents stays well within the latter, and float64 holds
# the sum of both.
_ZERO = -(2.0**60)
_ROOT_ORDER = 2.0**52

_LOG2_E = 1.0 / math.log(2.0)
_INTEGERS = 1.5 * 2.0**52
# log(2) in two parts, the first with so few bits that its multiples are exact.
_LOG_2_HIGH = 0.693145751953125
_LOG_2_LOW = 1.428606820309417232e-06


@kernel
def _normalise(m, x):
    if m.real >= _UPPER:
        return m * _INVERSE_RADIX, x + 1.0
    if m.real < _LOWER:
        return m * _RADIX, x - 1.0
    return m, x


@kernel
def _add(m, x, n, y):
    """The sum of two extended numbers."""
    gap = x - y
    if gap == 0.0:
        m, x = m + n, x
    elif gap == 1.0:
        m, x = m + n * _INVERSE_RADIX, x
    elif gap == -1.0:
        m, x = m * _INVERSE_RADIX + n, y
    elif gap < 0.0:
        m, x = n, y
    if m.real >= _UPPER:
        m, x = m * _INVERSE_RADIX, x + 1.0
    return m, x


@kernel
def _add_extended_multiple(target, target_x, factor, factor_x, source, source_x):
    for j in range(target.size):
        m, x = _normalise(factor * source[j], factor_x + source_x[j])
        target[j], target_x[j] = _add(target[j], target_x[j], m, x)


@kernel(fastmath={"contract"})
def _exponentiate(row, bits):
    """
    exp of every number of a row, in place, in a way that is vectorised: exp(x) = 2^k exp(r), Taylor's
    series in |r| < 0.35. For numbers within +-700. `bits` is working space, integers.
    """
    floats = bits.view(np.float64)
    for i in range(row.size):
        # Next to 1.5 * 2^52, the last bits of a float64 count integers.
        floats[i] = row[i] * _LOG2_E + _INTEGERS
    for i in range(row.size):
        k = floats[i] - _INTEGERS
        r = (row[i] - k * _LOG_2_HIGH) - k * _LOG_2_LOW
        series = 1.0 / 6227020800.0
        series = series * r + 1.0 / 479001600.0
        series = series * r + 1.0 / 39916800.0
        series = series * r + 1.0 / 3628800.0
        series = series * r + 1.0 / 362880.0
        series = series * r + 1.0 / 40320.0
        series = series * r + 1.0 / 5040.0
        series = series * r + 1.0 / 720.0
        series = series * r + 1.0 / 120.0
        series = series * r + 1.0 / 24.0
        series = series * r + 1.0 / 6.0
        series = series * r + 0.5
        series = series * r + 1.0
        row[i] = series * r + 1.0
    for i in range(row.size):
        bits[i] = (bits[i] + 1023) << 52
    for i in range(row.size):
        row[i] *= floats[i]


@kernel
def _read_weights(scores, tangent, unit, num_words, single_root, extended, weights, exponents):
    """
    Arc weights exp(score) (1 + unit * tangent), each word's rescaled by its largest, which changes all
    trees alike. Words are numbered from 0 here and ROOT is the last column. With a single root, arcs from
    ROOT are rescaled separately.

    Returns the logarithm of the scale of a tree, which is NaN if a score is, and whether plain numbers can
    hold the weights.
    """
    n = num_words
    scale = 0.0
    safe = True
    undefined = False
    top_root = -np.inf
    # The rescaled scores, for now.
    logs = exponents
    for d in range(n):
        given = scores[d + 1, : n + 1]
        row = logs[d, : n + 1]
        for h in range(n):
            row[h] = given[h + 1]
        row[n] = given[0]
        row[d] = -np.inf
        for h in range(n + 1):
            undefined |= np.isnan(row[h])
            row[h] = row[h] if row[h] > FORBIDDEN else -np.inf
        top = _maximum(row[: n if single_root else n + 1])
        if top > -np.inf:
            scale += top
            for h in range(n + 1):
                row[h] -= top
        top_root = max(top_root, row[n])
    if single_root and top_root > -np.inf:
        scale += top_root
        for d in range(n):
            logs[d, n] -= top_root
    buffer = np.empty(n + 1)
    bits = np.empty(n + 1, np.int64)
    for d in range(n):
        row = logs[d, : n + 1]
        if extended:
            # Not below where a tree's exponents could reach the order of an arc from ROOT: scores that are 2e17 / n
            # apart.
            lowest = -_LOG_RADIX * _ROOT_ORDER / (4.0 * n)
            for h in range(n + 1):
                score = max(row[h], lowest)
                blocks = np.rint(score / _LOG_RADIX)
                buffer[h] = score - blocks * _LOG_RADIX
                row[h] = blocks if row[h] > -np.inf else _ZERO
            if single_root:
                row[n] -= _ROOT_ORDER
        else:
            lowest = 0.0
            for h in range(n + 1):
                lowest = min(lowest, row[h] if row[h] > -np.inf else 0.0)
                buffer[h] = max(row[h], _LOG_TINY)
                row[h] = _ZERO if row[h] == -np.inf else 0.0
            safe &= lowest > _LOG_TINY
        _exponentiate(buffer, bits)
        target = weights[d, : n + 1]
        moves = tangent[d + 1, : n + 1]
        for h in range(n):
            target[h] = buffer[h] * (1.0 + unit * moves[h + 1])
        target[n] = buffer[n] * (1.0 + unit * moves[0])
        for h in range(n + 1):
            if row[h] <= _ZERO:
                target[h] = 0.0
    return np.nan if undefined else scale, safe


@kernel(fastmath=_ORDERED)
def _smallest(row):
    """The smallest positive number of a row, if there is one below 1."""
    smallest = 1.0
    for i in range(row.size):
        value = row[i].real
        smallest = min(smallest, value if value > 0.0 else 1.0)
    return smallest


# Words eliminated, and rows added up, together: spares loads and stores.
_BLOCK = 4


@kernel
def _add_product(target, column, factors, factor_column, rows, row_column, length):
    """
    target[:, column:][:, :length] += factors[:, factor_column:][:, :count] @ rows[:, row_column:][:,
    :length]
    """
    count = rows.shape[0]
    for start in range(0, count, _BLOCK):
        left = count - start
        row_0 = rows[start, row_column : row_column + length]
        row_1 = rows[start + (1 if left > 1 else 0), row_column : row_column + length]
        row_2 = rows[start + (2 if left > 2 else 0), row_column : row_column + length]
        row_3 = rows[start + (3 if left > 3 else 0), row_column : row_column + length]
        for i in range(target.shape[0]):
            given = factors[i, factor_column + start : factor_column + count]
            factor_0 = given[0]
            factor_1 = given[1] if left > 1 else 0.0 * factor_0
            factor_2 = given[2] if left > 2 else 0.0 * factor_0
            factor_3 = given[3] if left > 3 else 0.0 * factor_0
            result = target[i, column : column + length]
            for j in range(length):
                result[j] += factor_0 * row_0[j] + factor_1 * row_1[j] + factor_2 * row_2[j] + factor_3 * row_3[j]


@kernel
def _pass_on(graph, start, stop, first, last, size):
    """
    Eliminate the words `start` to `stop`, whose rows say where the walk from them first is outside, from
    the rows `first` to `last`.
    """
    if first < last:
        rows = graph[first:last]
        _add_product(rows, stop, rows, start, graph[start:stop], stop, size + 1 - stop)
        for i in range(first, last):
            graph[i, i] = 0.0


@kernel
def _eliminate(graph, num_gone, size, single_root, pivots):
    """
    Eliminate the first `num_gone` of `size` words. Their rows become the probabilities of where the walk
    from them first is among the others and ROOT (column `size`).

    Returns whether that succeeded: not if a word has no way to go on, or if there might be underflow.
    """
    for start in range(0, num_gone, _BLOCK):
        stop = min(start + _BLOCK, num_gone)
        for k in range(start, stop):
            row = graph[k, k + 1 : size + 1]
            pivot = 0.0 * row[0]
            for j in range(row.size - 1 if single_root else row.size):
                pivot += row[j]
            if not pivot.real > 0.0:
                return False
            pivots[k] = pivot.real
            inverse = 1.0 / pivot
            for j in range(row.size):
                row[j] *= inverse
            for i in range(start, stop):
                factor = graph[i, k]
                if i != k:
                    target = graph[i, k + 1 : size + 1]
                    for j in range(row.size):
                        target[j] += factor * row[j]
                    graph[i, i] = 0.0
        _pass_on(graph, start, stop, 0, start, size)
        _pass_on(graph, start, stop, stop, num_gone, size)
    _pass_on(graph, 0, num_gone, num_gone, size, size)
    # Factors stay where they were, and the numbers that they multiplied have grown at most. That is enough:
    # if a product was lost beside one that made a number grow, so it was in the results.
    for i in range(size):
        if _smallest(graph[i, : size + 1 if i < num_gone else num_gone]) < _TINY:
            return False
    return True


@kernel
def _eliminate_extended(graph, graph_x, num_gone, size, pivots, pivots_x):
    """As above, in extended numbers."""
    for k in range(num_gone):
        row = graph[k, k + 1 : size + 1]
        row_x = graph_x[k, k + 1 : size + 1]
        pivot, pivot_x = row[0], row_x[0]
        for j in range(1, row.size):
            pivot, pivot_x = _add(pivot, pivot_x, row[j], row_x[j])
        if not pivot.real > 0.0:
            return False
        pivots[k] = pivot.real
        pivots_x[k] = pivot_x
        inverse = 1.0 / pivot
        for j in range(row.size):
            row[j], row_x[j] = _normalise(row[j] * inverse, row_x[j] - pivot_x)
        for i in range(size):
            if i != k and graph[i, k].real > 0.0:
                target, target_x = graph[i, k + 1 : size + 1], graph_x[i, k + 1 : size + 1]
                _add_extended_multiple(target, target_x, graph[i, k], graph_x[i, k], row, row_x)
                graph[i, i] = 0.0
                graph_x[i, i] = _ZERO
    return True


@kernel
def _rotate(graph, offset, size, turn, result):
    """
    Copy the graph of the words from `offset` on, the first `turn` of them moved behind the others; ROOT
    stays last.
    """
    for i in range(size):
        source = graph[offset + (i + turn if i + turn < size else i + turn - size), offset : offset + size + 1]
        target = result[i, : size + 1]
        for j in range(size - turn):
            target[j] = source[j + turn]
        for j in range(turn):
            target[size - turn + j] = source[j]
        target[size] = source[size]


@kernel
def _join(work, gone, size, first_gone, first_kept, escape):
    """
    The rows of `escape` of eliminated words, from where their walks first are among those kept. Returns
    whether there cannot be underflow.
    """
    kept = size - gone
    rows = escape[first_gone : first_gone + gone]
    for i in range(gone):
        row = rows[i, first_kept : first_kept + kept]
        to_root = work[i, size]
        for j in range(kept):
            row[j] = to_root
    _add_product(rows, first_kept, work, gone, escape[first_kept : first_kept + kept], first_kept, kept)
    for i in range(gone):
        if _smallest(rows[i, first_kept : first_kept + kept]) < _TINY:
            return False
    return True


@kernel
def _join_extended(work, work_x, gone, size, first_gone, first_kept, escape, escape_x):
    """As above, in extended numbers."""
    end = first_kept + size - gone
    for i in range(gone):
        row = escape[first_gone + i, first_kept:end]
        row_x = escape_x[first_gone + i, first_kept:end]
        row[:] = work[i, size]
        row_x[:] = work_x[i, size]
        for j in range(size - gone):
            other = escape[first_kept + j, first_kept:end]
            other_x = escape_x[first_kept + j, first_kept:end]
            _add_extended_multiple(row, row_x, work[i, gone + j], work_x[i, gone + j], other, other_x)


@kernel
def _escape_probabilities(graphs, graphs_x, num_words, single_root, extended, escape, escape_x, pivots, pivots_x):
    """
    Fill `escape[h, d]`, the probability that the walk from h stops at ROOT without meeting d, in the graph
    `graphs[0]`. Returns whether that succeeded, as in `_eliminate`.

    By dividing and conquering (a loop over a stack: numba cannot cache recursive functions): each half of
    the words in turn is eliminated, which leaves a smaller problem for the other half in `graphs[level +
    1]`, and its rows then follow.
    """
    depth = graphs.shape[0]
    offsets, firsts, sizes, sides = np.zeros((4, depth), np.int64)
    sizes[0] = num_words
    level = 0
    while level >= 0:
        size, first, side = sizes[level], firsts[level], sides[level]
        if size == 1:
            escape[first, first] = 0.0
            escape_x[first, first] = _ZERO
            level -= 1
            continue
        if size == 2 and not extended:
            # What would come out, without the overhead that small problems suffer most from.
            graph, offset = graphs[level], offsets[level]
            for i in range(2):
                onward, to_root = graph[offset + i, offset + 1 - i], graph[offset + i, offset + 2]
                pivot = onward if single_root else onward + to_root
                if not pivot.real > 0.0:
                    return False
                chance = to_root / pivot
                if 0.0 < chance.real < _TINY:
                    return False
                escape[first + i, first + 1 - i] = chance
                escape[first + i, first + i] = 0.0
            level -= 1
            continue
        half = size // 2
        work, work_x = graphs[level + 1], graphs_x[level + 1]
        if side > 0:
            gone = half if side == 1 else size - half
            first_gone, first_kept = (first, first + half) if side == 1 else (first + half, first)
            if extended:
                _join_extended(work, work_x, gone, size, first_gone, first_kept, escape, escape_x)
            elif not _join(work, gone, size, first_gone, first_kept, escape):
                return False
            if side == 2:
                level -= 1
                continue
        gone = half if side == 0 else size - half
        _rotate(graphs[level], offsets[level], size, side * half, work)
        if extended:
            _rotate(graphs_x[level], offsets[level], size, side * half, work_x)
            possible = _eliminate_extended(work, work_x, gone, size, pivots, pivots_x)
        else:
            possible = _eliminate(work, gone, size, single_root, pivots)
        if not possible:
            return False
        sides[level] += 1
        level += 1
        offsets[level] = gone
        firsts[level] = first + half if side == 0 else first
        sizes[level] = size - gone
        sides[level] = 0
    return True


@kernel
def log_partitions(scores, lengths, single_root, results, start, stop):
    """Fill `results` (batch,); -inf where there is no tree."""
    most = lengths[start:stop].max()
    graph, graph_x = np.empty((most, most + 1)), np.empty((most, most + 1))
    pivots, pivots_x = np.empty(most + 1), np.empty(most + 1)
    for b in range(start, stop):
        n = lengths[b]
        if n == 0:
            results[b] = 0.0
            continue
        possible = False
        for extended in (False, True):
            scale, safe = _read_weights(scores[b], scores[b], 0.0, n, single_root, extended, graph, graph_x)
            if extended:
                possible = _eliminate_extended(graph, graph_x, n - 1, n, pivots, pivots_x)
            else:
                possible = safe and _eliminate(graph, n - 1, n, single_root, pivots)
            if possible or np.isnan(scale):
                break
        if not possible:
            results[b] = scale - np.inf
            continue
        pivots[n - 1] = graph[n - 1, n]
        pivots_x[n - 1] = graph_x[n - 1, n] if extended else 0.0
        result = scale
        exponent = 0.0
        for k in range(n):
            result += np.log(pivots[k])
            exponent += pivots_x[k] if extended else 0.0
        if extended and single_root:
            exponent += _ROOT_ORDER
        # Another arc from ROOT would be needed.
        if exponent < -0.5 * _ROOT_ORDER:
            result = -np.inf
        results[b] = result + exponent * _LOG_RADIX


@kernel
def _largest_move(scores, tangent, num_words):
    largest = 0.0
    for d in range(1, num_words + 1):
        for h in range(num_words + 1):
            if h != d and scores[d, h] > FORBIDDEN:
                largest = max(largest, abs(tangent[d, h]))
    return largest if largest > 0.0 else 1.0


@kernel
def arc_marginals(scores, tangent, unit, lengths, single_root, graphs, escape, results, start, stop):
    """
    Fill `results` (batch, tokens, tokens), given as zeros, which a sentence without a tree keeps.

    # Parameters

    unit : `float` or `complex`
        0 for the marginals. An infinitesimal imaginary number for their derivative as the scores move along
        `tangent`.
    graphs, escape : working space
        `(levels, words, words + 1)` and `(words, words)`, of the type of `unit`.
    """
    graphs_x, escape_x = np.empty(graphs.shape), np.empty(escape.shape)
    pivots, pivots_x = np.empty(escape.shape[0]), np.empty(escape.shape[0])
    for b in range(start, stop):
        n = lengths[b]
        if n == 0:
            continue
        result = results[b, : n + 1, : n + 1]
        step = unit
        if unit.imag > 0.0:
            step = unit / _largest_move(scores[b], tangent[b], n)
        found = False
        for extended in (False, True):
            scale, safe = _read_weights(scores[b], tangent[b], step, n, single_root, extended, graphs[0], graphs_x[0])
            found = (safe or extended) and _escape_probabilities(
                graphs, graphs_x, n, single_root, extended, escape, escape_x, pivots, pivots_x
            )
            if found or np.isnan(scale):
                break
        if np.isnan(scale):
            result[1:] = np.nan
            continue
        if not found:
            continue
        root_arcs = 0.0
        for d in range(n):
            row, row_x = graphs[0, d], graphs_x[0, d]
            for h in range(n):
                row[h] *= escape[h, d]
            if extended:
                top = -np.inf
                for h in range(n + 1):
                    row[h], row_x[h] = _normalise(row[h], row_x[h] + (escape_x[h, d] if h < n else 0.0))
                    if row[h].real > 0.0:
                        top = max(top, row_x[h])
                for h in range(n + 1):
                    row[h] *= _RADIX ** max(row_x[h] - top, -3.0)
            total = row[n]
            for h in range(n):
                total += row[h]
            inverse = 1.0 / total if total.real > 0.0 else 0.0 * total
            for h in range(n + 1):
                row[h] *= inverse
            root_arcs += row[n].real
            target = result[d + 1]
            if unit.imag > 0.0:
                for h in range(n):
                    target[h + 1] = row[h].imag / step.imag
                target[0] = row[n].imag / step.imag
            else:
                for h in range(n):
                    target[h + 1] = row[h].real
                target[0] = row[n].real
        # No tree: some word has no way to ROOT, or a single root is asked for and cannot be had.
        if root_arcs == 0.0 or (single_root and root_arcs > 1.5):
            result[:] = 0.0


# ----------------------------------------------------------------------------------------------------------
# Samples
# ----------------------------------------------------------------------------------------------------------

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


@kernel
def _uniform(state):
    """A number in [0, 1): SplitMix64 (Steele, Lea & Flood 2014)."""
    state[0] += _GOLDEN
    z = state[0]
    z = (z ^ (z >> np.uint64(30))) * _MIX_1
    z = (z ^ (z >> np.uint64(27))) * _MIX_2
    z = z ^ (z >> np.uint64(31))
    return np.int64(z >> np.uint64(11)) * 2.0**-53


@kernel
def _draw(weights, state):
    """An index, with probability proportional to its weight; -1 if all weights are 0."""
    total = 0.0
    for i in range(weights.size):
        total += weights[i]
    point = _uniform(state) * total
    drawn = -1
    for i in range(weights.size):
        if weights[i] > 0.0:
            drawn = i
            point -= weights[i]
            if point < 0.0:
                break
    return drawn


@kernel
def _draw_extended(weights, exponents, state):
    top = -np.inf
    for i in range(weights.size):
        if weights[i] > 0.0:
            top = max(top, exponents[i])
    plain = np.zeros(weights.size)
    for i in range(weights.size):
        if weights[i] > 0.0:
            plain[i] = weights[i] * _RADIX ** max(exponents[i] - top, -3.0)
    return _draw(plain, state)


@kernel
def _random_walks(cumulative, root_child, state, heads):
    """
    Wilson's (1996) algorithm: loop-erased random walks towards the tree. Returns whether it ended within a
    number of steps.

    To give up and to sample in another way then is no bias: the tree that remains is independent of the
    loops erased.
    """
    size = cumulative.shape[0]
    steps = 20 * size * size
    in_tree = np.zeros(size, np.bool_)
    in_tree[0] = True
    if root_child > 0:
        heads[root_child] = 0
        in_tree[root_child] = True
    for word in range(1, size):
        node = word
        while not in_tree[node]:
            steps -= 1
            row = cumulative[node]
            if steps < 0 or not row[size - 1] > 0.0:
                return False
            # The first head whose cumulative weight exceeds the point: never one of weight 0.
            head = np.searchsorted(row, _uniform(state) * row[size - 1], side="right")
            heads[node] = min(head, size - 1)
            node = heads[node]
        node = word
        while not in_tree[node]:
            in_tree[node] = True
            node = heads[node]
    return True


@kernel
def _ancestral_sample(weights, exponents, state, heads):
    """
    Sample the words' heads one by one, each from its marginals given those before, in O(n^4) extended
    operations.

    A word with its head becomes one node, so that the graph shrinks; which of a node's words is the head is
    drawn afterwards. Returns whether there is a tree.
    """
    n = weights.shape[0]
    graph, graph_x = weights.copy(), exponents.copy()
    work, work_x = np.empty((n, n + 1)), np.empty((n, n + 1))
    pivots, pivots_x = np.empty(n), np.empty(n)
    chances, chances_x = np.empty(n + 1), np.empty(n + 1)
    node = np.arange(n + 1)
    for d in range(n - 1, -1, -1):
        for i in range(d + 1):
            work[i, : d + 1], work_x[i, : d + 1] = graph[i, : d + 1], graph_x[i, : d + 1]
            work[i, d + 1], work_x[i, d + 1] = graph[i, n], graph_x[i, n]
        if not _eliminate_extended(work, work_x, d, d + 1, pivots, pivots_x):
            return False
        chances[:] = 0.0
        chances[n], chances_x[n] = graph[d, n], graph_x[d, n]
        for h in range(d):
            chances[h], chances_x[h] = _normalise(graph[d, h] * work[h, d + 1], graph_x[d, h] + work_x[h, d + 1])
        target = _draw_extended(chances, chances_x, state)
        if target < 0:
            return False
        for h in range(n + 1):
            chances[h] = weights[d, h] if node[h] == target else 0.0
            chances_x[h] = exponents[d, h]
        head = _draw_extended(chances, chances_x, state)
        heads[d + 1] = 0 if head == n else head + 1
        for i in range(d):
            if i != target:
                graph[i, target], graph_x[i, target] = _add(
                    graph[i, target], graph_x[i, target], graph[i, d], graph_x[i, d]
                )
        for h in range(n + 1):
            if node[h] == d:
                node[h] = target
    return True


@kernel
def random_trees(scores, lengths, marginals, single_root, seeds, heads, start, stop):
    """
    Fill `heads` (samples, batch, tokens), given as -1, with samples from the Gibbs distribution. With a
    single root, the word under it is drawn from its `marginals` (batch, tokens, tokens), and then takes the
    place of ROOT.
    """
    state = np.empty(1, np.uint64)
    for b in range(start, stop):
        n = lengths[b]
        if n == 0:
            continue
        weights, exponents = np.empty((n, n + 1)), np.empty((n, n + 1))
        _read_weights(scores[b], scores[b], 0.0, n, single_root, False, weights, exponents)
        cumulative = np.zeros((n + 1, n + 1))
        for d in range(n):
            total = 0.0 if single_root else weights[d, n]
            cumulative[d + 1, 0] = total
            for h in range(n):
                total += weights[d, h]
                cumulative[d + 1, h + 1] = total
        for sample in range(seeds.shape[0]):
            state[0] = np.uint64(seeds[sample, b])
            tree = heads[sample, b, : n + 1]
            root_child = 0
            if single_root:
                root_child = _draw(marginals[b, : n + 1, 0], state)
                if root_child < 0:
                    _any_tree(tree)
                    continue
            if _random_walks(cumulative, root_child, state, tree):
                continue
            _read_weights(scores[b], scores[b], 0.0, n, single_root, True, weights, exponents)
            if single_root:
                for d in range(n):
                    weights[d, n] = 1.0 if d == root_child - 1 else 0.0
                    exponents[d, n] = 0.0 if d == root_child - 1 else _ZERO
            if not _ancestral_sample(weights, exponents, state, tree):
                _any_tree(tree)
