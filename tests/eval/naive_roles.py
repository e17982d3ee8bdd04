"""What heads look at, one head, document, query and key after another, in float64: the measures of roles as defined.

Throughout, `attention` is (N, H, T, T) with rows of queries, rows and columns beyond a document's length unread;
`lengths` (N,); `tokens` int (N, T); `links` int (n, 3), each (document, query, key) once. A query without links is
not scored; where none has any, a score is NaN. A model is causal unless said.

Dimension key: N document, H head, T position, F file, V vocabulary.
"""

import collections
import math

import numpy as np

FEWEST = 20  # other documents that reach a query's position, or offsets take the place of positions


def keys_of_queries(links) -> dict[tuple[int, int], list[int]]:
    """The linked keys of each (document, query) that has any."""
    keys = collections.defaultdict(list)
    for document, query, key in np.asarray(links).tolist():
        keys[document, query].append(key)
    return dict(keys)


def links_of_duplicates(tokens, lengths) -> np.ndarray:
    """From each token to all earlier copies of it."""
    links = []
    for document, length in enumerate(lengths):
        for query in range(length):
            for key in range(query):
                if tokens[document][key] == tokens[document][query]:
                    links.append((document, query, key))
    return np.array(links, int).reshape(-1, 3)


def links_of_induction(tokens, lengths) -> np.ndarray:
    """From each token to what followed its earlier copies: keys p with token[p - 1] = token[q] (Olsson et al. 2022). A
    token that repeats the one just before it follows an earlier copy itself, so then p = q is one of them."""
    links = []
    for document, length in enumerate(lengths):
        for query in range(length):
            for key in range(1, query + 1):
                if tokens[document][key - 1] == tokens[document][query]:
                    links.append((document, query, key))
    return np.array(links, int).reshape(-1, 3)


# Content roles: a score of each head (H,), and what it would have without the role.


def mass(attention, links) -> np.ndarray:
    """Attention on the linked keys of a query, their sum, in the mean over queries with links."""
    sums, counts = mass_of_files(attention, links, [0] * len(attention))
    return _ratio(sums[0], counts[0])


def mass_of_files(attention, links, files) -> tuple[np.ndarray, np.ndarray]:
    """Its sums over the queries of each file (F, H), and how many these are (F,); `files` has each document's."""
    num_heads, num_files = attention.shape[1], max(files) + 1
    sums, counts = np.zeros((num_files, num_heads)), np.zeros(num_files)
    for (document, query), keys in keys_of_queries(links).items():
        counts[files[document]] += 1
        for head in range(num_heads):
            for key in keys:
                sums[files[document], head] += float(attention[document, head, query, key])
    return sums, counts


def share_at_offset(links, offset: int) -> float:
    """Reference (a): the share of queries with links for which a linked key stands `offset` = query - key before."""
    found = [any(query - key == offset for key in keys) for (_, query), keys in keys_of_queries(links).items()]
    return sum(found) / len(found) if found else math.nan


def permuted_mass(attention, lengths, links) -> np.ndarray:
    """Reference (b): the mass that a query's links would get from other documents' attention.

    The mean over the other documents that reach the query and the key, of their attention there. Where fewer than
    FEWEST reach them, a key gets what keys at its offset from the query get in the mean over all documents and queries.
    """
    num_heads = attention.shape[1]
    sums, queries, at_offset = np.zeros(num_heads), 0, {}
    for (document, query), keys in keys_of_queries(links).items():
        queries += 1
        for head in range(num_heads):
            for key in keys:
                others = [n for n in range(len(attention)) if n != document and lengths[n] > max(query, key)]
                if len(others) >= FEWEST:
                    seen = [float(attention[n, head, query, key]) for n in others]
                    sums[head] += sum(seen) / len(seen)
                else:
                    offset = query - key
                    if (head, offset) not in at_offset:
                        at_offset[head, offset] = _mean_at_offset(attention, lengths, head, offset)
                    sums[head] += at_offset[head, offset]
    return _ratio(sums, queries)


def _mean_at_offset(attention, lengths, head: int, offset: int) -> float:
    seen = []
    for document, length in enumerate(lengths):
        for query in range(1, length):  # the first token is no query
            if 0 <= query - offset < length:
                seen.append(float(attention[document, head, query, query - offset]))
    return sum(seen) / len(seen)


def mass_without_link(attention, lengths, links, causal: bool = True) -> np.ndarray:
    """Reference (c): the mass that a query's linked keys get anyway: each in the mean over the queries of its document
    that can see it and have no link; 0 where there is no such query."""
    num_heads, linked = attention.shape[1], keys_of_queries(links)
    sums = np.zeros(num_heads)
    for (document, _), keys in linked.items():
        for key in keys:
            first = key if causal else 0
            others = [other for other in range(first, lengths[document]) if (document, other) not in linked]
            for head in range(num_heads):
                if others:
                    seen = [float(attention[document, head, other, key]) for other in others]
                    sums[head] += sum(seen) / len(seen)
    return _ratio(sums, len(linked))


def effect(mass, reference) -> np.ndarray:
    """(mass - reference) / (1 - reference): 0 at the reference, 1 at best; NaN where the reference is 1."""
    mass, reference = np.broadcast_arrays(np.asarray(mass, float), np.asarray(reference, float))
    out = np.full(mass.shape, math.nan)
    for at in np.ndindex(mass.shape):
        if reference[at] < 1:
            out[at] = (mass[at] - reference[at]) / (1 - reference[at])
    return out


def argmax_share(attention, lengths, links) -> np.ndarray:
    """The share of queries with links whose largest weight, the first of equal ones, is on a linked key."""
    num_heads, linked = attention.shape[1], keys_of_queries(links)
    found = np.zeros(num_heads)
    for (document, query), keys in linked.items():
        for head in range(num_heads):
            found[head] += int(np.argmax(attention[document, head, query, : lengths[document]])) in keys
    return _ratio(found, len(linked))


# Positional roles and other properties: the mean over queries (H,).


def offset_mass(attention, lengths, offset: int) -> np.ndarray:
    """Attention on the token `offset` = query - key before, over the queries that have one within the document."""

    def one(row, query, length):
        return row[query - offset] if 0 <= query - offset < length else None

    return _over_queries(attention, lengths, one)


def previous_token_mass(attention, lengths) -> np.ndarray:
    return offset_mass(attention, lengths, 1)


def local_mass(attention, lengths) -> np.ndarray:
    """Attention on the three tokens before, less what a uniform causal row gives these, over all queries."""

    def one(row, query, length):
        before = [key for key in (query - 1, query - 2, query - 3) if key >= 0]
        return sum(row[key] for key in before) - len(before) / (query + 1)

    return _over_queries(attention, lengths, one)


def entropy(attention, lengths, causal: bool = True) -> np.ndarray:
    """Entropy of .9999 A + .0001 / n over log n, where a query sees n keys; over the queries that see more than one."""

    def one(row, query, length):
        visible = query + 1 if causal else length
        if visible == 1:
            return None
        smooth = [0.9999 * row[key] + 0.0001 / visible for key in range(visible)]
        return -sum(weight * math.log(weight) for weight in smooth) / math.log(visible)

    return _over_queries(attention, lengths, one)


def confidence(attention, lengths) -> np.ndarray:
    """The largest weight, over all queries (Voita et al. 2019)."""
    return _over_queries(attention, lengths, lambda row, query, length: max(row[:length]))


def first_token_mass(attention, lengths) -> np.ndarray:
    """Attention on a document's first token, over all queries."""
    return _over_queries(attention, lengths, lambda row, query, length: row[0])


def rare_token_share(attention, lengths, tokens, counts, causal: bool = True) -> np.ndarray:
    """Whether the largest weight is on the rarest token visible, the first of equally rare ones, less the chance of
    it, 1 over how many are visible; over all queries. `counts` (V,) says how frequent tokens are."""
    num_documents, num_heads = attention.shape[:2]
    sums, queries = np.zeros(num_heads), 0
    for document in range(num_documents):
        for query in range(lengths[document]):
            visible = query + 1 if causal else lengths[document]
            frequency = [counts[tokens[document][key]] for key in range(visible)]
            rarest = frequency.index(min(frequency))
            queries += 1
            for head in range(num_heads):
                hit = int(np.argmax(attention[document, head, query, :visible])) == rarest
                sums[head] += hit - 1 / visible
    return _ratio(sums, queries)


def _over_queries(attention, lengths, one) -> np.ndarray:
    """The mean of one(row of weights, query, document's length) over the queries of all documents, None left out."""
    num_documents, num_heads = attention.shape[:2]
    means = np.full(num_heads, math.nan)
    for head in range(num_heads):
        values = []
        for document in range(num_documents):
            length = int(lengths[document])
            for query in range(length):
                row = [float(weight) for weight in attention[document, head, query, :length]]
                value = one(row, query, length)
                if value is not None:
                    values.append(value)
        if values:
            means[head] = sum(values) / len(values)
    return means


def _ratio(sums: np.ndarray, count: float) -> np.ndarray:
    return sums / count if count else np.full(sums.shape, math.nan)
