"""Weights, in closed form, with which one head holds every relation of family P: the start that C4b's rule asks for.

One head can tell all 2^r combinations of the r sources' bits apart if it weighs them in proportion 1, 1/2, 1/4, ...:
its sum of +-bits then has 2^r levels, equally spaced. So

  positions  are sines and cosines of the position; a logit is a function of the distance, log weights at the sources'
             offsets and LOW elsewhere (a Fourier series of a period beyond the largest offset; a slow wave suppresses
             what lies a period or more away);
  attention  sums the bits of the content words so weighted, into one coordinate;
  MLP        is a staircase, two GELU units a step: between two levels it changes those answer bits that differ, which
             the query's word set to those of the lowest level; under `switch` a step counts for its relation's names
             alone;
  readout    compares these bits with each answer's.

A step of AdamW moves every weight about as far, by the learning rate, and six bits in one sum are as fine as 1 in 63.
What an RMSNorm reads may have any length, so many weights are the same function; of these they are the ones that such a
step changes least. What stays fine are the logits, to about a hundredth. Training keeps six relations at a rate of
.0001, mostly at .0003, and leaves them within its first 50 steps at .001 and above.

Everything that is no answer is predicted at about its frequency. Words and positions have a constant norm each, so
that the RMSNorms only scale.

Dimension key: D d_model, V vocabulary, T position, K head width, F feed-forward.
"""

import numpy as np

from mha.transformer import ModelConfig
from train.data.relations.dose import Dose
from train.data.relations.language import Language

LOW = -8.0  # logit of a distance that is no source's, beside 0 at the first source
SLOW = 20.0  # amplitude of the wave that suppresses distances beyond a period
EDGE = 1.0  # a step rises from -EDGE to EDGE of its units' input
CLEAR = 2.5  # input of a step's units at the levels beside it
MARGIN = 10.0  # logits that a wrong bit costs an answer
MIDDLE = 0.95  # what an RMSNorm makes of its input at a middling sum, beside a sum of 0
NEVER = -12.0  # logit of an answer where none is due
RESIDUAL, VALUE, NORM_ATTENTION, NORM_MLP = 1000.0, 30.0, 0.2, 4.0  # factors, see `weights`


def refusal(model: ModelConfig, spoken: Language) -> str:
    """Why a model cannot start so, as a sentence; empty if it can."""
    if not isinstance(spoken, Dose):
        return "A start by hand is of family P alone; data.relations names kinds of family K."
    layout = _Layout(spoken)
    needed = {"d_model": layout.width, "d_k": len(layout.position), "d_ff": 2 * len(_stairs(spoken))}
    have = {"d_model": model.d_model, "d_k": model.d_k, "d_ff": model.d_ff[0]}
    if model.num_heads == 1 and all(have[name] >= needed[name] for name in needed):
        return ""
    return (
        f"A start by hand at dose {len(spoken.on)} needs one head and at least {_listed(needed)}; this model "
        f"has num_heads={model.num_heads}, {_listed(have)}."
    )


def _listed(numbers: dict[str, int]) -> str:
    return ", ".join(f"{name}={number}" for name, number in numbers.items())


def weights(model: ModelConfig, spoken: Dose, drawn: dict) -> dict:
    """`drawn`, the parameters of one replica as initialised, with the first block's, the embeddings and the readout by
    hand; what later blocks add is 0 at first. `refusal` must be empty."""
    layout = _Layout(spoken)
    words, places = _words(spoken, layout), _places(layout, model.seq_len)
    norm = np.sqrt((words[0] ** 2).sum() + (places[0] ** 2).sum())
    gain = np.sqrt(model.d_model) / norm  # of an RMSNorm, before the attention
    mlp_in, mlp_out = _staircase(model, spoken, layout, gain, norm / 2)
    # Of the weights that are the same function those that a step of AdamW changes least: all that is added to the
    # residual stream is RESIDUAL times as long, values VALUE times, and what the two norms give NORM_ATTENTION and
    # NORM_MLP times.
    factors = {"w_q": 1 / NORM_ATTENTION, "w_k": 1 / NORM_ATTENTION, "w_v": VALUE / NORM_ATTENTION}
    factors["w_o"] = RESIDUAL / VALUE
    attention = _attention(model, spoken, layout, gain, norm / 2)
    silent = {"attention": {"w_o": 0.0}, "mlp_out": {"kernel": 0.0}}
    ours = {f"block_{layer}": silent for layer in range(1, model.num_layers)} | {
        "embed": {"embedding": RESIDUAL * _padded(words, (model.vocab_size, model.d_model))},
        "positions": {"embedding": RESIDUAL * _padded(places, (model.seq_len, model.d_model))},
        "block_0": {
            "norm_attention": {"scale": NORM_ATTENTION},
            "attention": {name: factors[name] * weight for name, weight in attention.items()},
            "norm_mlp": {"scale": NORM_MLP},
            "mlp_in": {"kernel": mlp_in / NORM_MLP},
            "mlp_out": {"kernel": RESIDUAL * mlp_out},
        },
        "unembed": {"kernel": _readout(model, spoken, layout, gain)},
    }
    return _over(drawn, ours)


class _Layout:
    """Which coordinates of the residual stream hold what."""

    def __init__(self, spoken: Dose):
        self.period = 2 * (max(spoken.offsets) // 2 + 2)
        names = 1 if spoken.demand == "joint" else len(spoken.on)
        sizes = {
            "position": self.period + 1,
            "bits": spoken.num_bits,  # of the answer
            "queries": names,  # under switch, one for the names of each relation
            "bit": 1,  # of a content word
            "sum": 1,  # what attention writes
            "one": 1,
            "rest": 1,  # what makes all words as long
        }
        ends = np.cumsum(list(sizes.values()))
        for (name, size), end in zip(sizes.items(), ends.tolist(), strict=True):
            setattr(self, name, np.arange(end - size, end))
        self.width = int(ends[-1])


def _words(spoken: Dose, layout: _Layout) -> np.ndarray:
    """(V, width)."""
    vocabulary = spoken.vocabulary
    table = np.zeros((len(vocabulary), layout.width))
    table[:, layout.one] = 1
    table[:, layout.bit[0]] = np.where(vocabulary.kinds == "content", 2.0 * vocabulary.bits - 1, 0)
    queries = np.flatnonzero(vocabulary.kinds == "query")
    name, own = np.divmod(np.arange(len(queries)), spoken.num_own)
    own_bits = spoken.num_own.bit_length() - 1
    table[queries[:, None], layout.bits[:own_bits]] = 2.0 * (own[:, None] >> np.arange(own_bits)[::-1] & 1) - 1
    read = list(spoken.on) if spoken.demand == "joint" else [-1]
    table[queries[:, None], layout.bits[read]] = -1  # the lowest level's
    table[queries, layout.queries[name % len(layout.queries)]] = 1
    lengths = (table**2).sum(axis=1)
    table[:, layout.rest[0]] = np.sqrt(lengths.max() - lengths)
    return table


def _places(layout: _Layout, length: int) -> np.ndarray:
    """(T, width): cosines, sines, the alternating sign, and the slow wave's cosine and sine; the last frequency of the
    period, of pi radians a token, has its cosine alone."""
    at = np.arange(length)[:, None]
    angles, slow = at * (2 * np.pi * np.arange(1, layout.period // 2) / layout.period), at * np.pi / length
    waves = [np.cos(angles), np.sin(angles), np.cos(np.pi * at), np.cos(slow), np.sin(slow)]
    table = np.zeros((length, layout.width))
    table[:, layout.position] = np.concatenate(waves, axis=1)
    return table


def _attention(model: ModelConfig, spoken: Dose, layout: _Layout, gain: float, reach: float) -> dict:
    """One head whose logits are LOW but for the sources; `reach` is what their sum becomes at most."""
    wanted = np.full(layout.period, LOW)
    wanted[[spoken.offsets[relation] for relation in spoken.on]] = -np.log(2) * np.arange(len(spoken.on))
    wanted -= SLOW * np.cos(np.arange(layout.period) * np.pi / model.seq_len)
    series = np.fft.rfft(wanted) / layout.period
    cosine, sine = 2 * series.real[1:-1], -2 * series.imag[1:-1]
    pairs, at = len(cosine), layout.position
    read, keys = np.zeros((2, layout.width, len(at)))  # features of the query, and the key's cosines, sines, ...
    cos, sin = np.arange(pairs), pairs + np.arange(pairs)
    read[at[cos], cos], read[at[sin], cos] = cosine, sine
    read[at[cos], sin], read[at[sin], sin] = -sine, cosine
    read[at[2 * pairs], 2 * pairs] = series.real[-1]
    read[at[-2:], [2 * pairs + 1, 2 * pairs + 2]] = SLOW
    shared = np.sqrt(np.sqrt(model.d_k) * np.abs(read).max()) / gain  # query and key weights of about a size
    keys[at, np.arange(len(at))] = shared
    values, out = np.zeros((layout.width, 1)), np.zeros((1, layout.width))
    values[layout.bit], out[0, layout.sum] = 1 / gain, reach
    ours = {"w_q": read * np.sqrt(model.d_k) / gain**2 / shared, "w_k": keys, "w_v": values}
    weights = {name: _padded(weight, (model.d_model, model.d_k))[:, None] for name, weight in ours.items()}
    return weights | {"w_o": _padded(out, (model.d_k, model.d_model))[None]}


def _stairs(spoken: Dose) -> list[tuple[int, int, list[int]]]:
    """(step, coordinate of `queries` that it counts for, ranks of the relations whose bits differ across it)."""
    r = len(spoken.on)
    changed = [[rank for rank in range(r) if (step + 1) % 2 ** (r - 1 - rank) == 0] for step in range(2**r - 1)]
    if spoken.demand == "joint":
        return [(step, 0, ranks) for step, ranks in enumerate(changed)]
    return [(step, rank, [rank]) for step, ranks in enumerate(changed) for rank in ranks]


def _staircase(model: ModelConfig, spoken: Dose, layout: _Layout, gain: float, reach: float):
    """(D, F) and (F, D). The sum's levels are reach (2 c / steps - 1) for c = 0 ... steps, where the binary digits of c
    are the bits of the relations in their order."""
    r, stairs = len(spoken.on), _stairs(spoken)
    steps = 2**r - 1
    sharp = CLEAR * steps / (reach * gain)
    silence = sharp * reach + 2 * CLEAR / gain  # no sum makes up for it
    into, out = np.zeros((layout.width, 2 * len(stairs))), np.zeros((2 * len(stairs), layout.width))
    into[layout.sum], into[layout.one] = sharp, -silence
    for unit, (step, query, ranks) in enumerate(stairs):
        between = reach * ((2 * step + 1) / steps - 1)
        for side, sign in ((2 * unit, 1), (2 * unit + 1, -1)):
            into[layout.queries[query], side] = silence - sharp * between + sign * EDGE / gain
            for rank in ranks:
                rises = (step + 1) >> (r - 1 - rank) & 1
                bit = spoken.on[rank] if spoken.demand == "joint" else -1
                out[side, layout.bits[bit]] = sign * (1 if rises else -1) / (EDGE * MIDDLE)
    shape = (model.d_model, model.d_ff[0])
    return _padded(into, shape), _padded(out, shape[::-1])


def _readout(model: ModelConfig, spoken: Dose, layout: _Layout, gain: float) -> np.ndarray:
    """(D, V)."""
    vocabulary = spoken.vocabulary
    blanks = (1 - spoken.distractors) * (spoken.frame_tokens - spoken.num_bits)
    a_frame = {"bos": 1e-6, "blank": blanks + 1e-6, "filler": spoken.most_fillers / 2 + 1e-6}
    a_frame |= {"content": spoken.frame_tokens - blanks, "query": 1.0, "answer": 1.0}
    readout = np.zeros((layout.width, len(vocabulary)))
    for kind, number in a_frame.items():
        mine = vocabulary.kinds == kind
        readout[layout.one, mine] = np.log(number / sum(a_frame.values()) / mine.sum()) / gain
    answers = vocabulary.kinds == "answer"
    readout[layout.one, answers], readout[layout.queries[:, None], answers] = NEVER / gain, -NEVER / gain
    readout[layout.bits[:, None], answers] = MARGIN / (2 * MIDDLE * gain) * (2 * vocabulary.answer_bits[answers].T - 1)
    return _padded(readout, (model.d_model, model.vocab_size))


def _padded(matrix: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    return np.pad(matrix, [(0, size - own) for size, own in zip(shape, matrix.shape, strict=True)])


def _over(drawn, ours):
    """`drawn` with the leaves of `ours` in their places, float32."""
    if not isinstance(ours, dict):
        return np.full(drawn.shape, ours, drawn.dtype)
    return drawn | {name: _over(drawn[name], value) for name, value in ours.items()}
