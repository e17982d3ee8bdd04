"""What the heads of a restored cell are watched on: its texts, the roles in them, and one pass over them a replica."""

import dataclasses
import functools
import string
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from eval.heads.roles import effects, sums, texts
from eval.heads.roles.effects import LOCAL, NEXT, OFFSET, PREVIOUS, Effects
from eval.heads.roles.sums import NEAR, Sums
from eval.heads.roles.texts import DUPLICATE, FEWEST_LINKS, INDUCTION, Texts
from eval.restore import Restored
from mha.transformer import ModelConfig, Transformer
from train.data import conllu_text, gold
from train.data.corpora import Corpus, eval_windows
from train.data.relations import doses
from train.data.relations.language import Links

OWN, REPEATS, LABELLED = "own", "repeats", "labelled"  # texts
REPEATS_TEXTS = 128
COMMON = 0.99  # of the train split are the tokens that repeats are made of
ONE_OFFSET = 0.99  # of a relation's queries have a key at one offset: that defines it, and it is a positional role
SHARE_UNTRAINED = 10  # untrained models see every so many of the texts, FEWEST_UNTRAINED of them at least
FEWEST_UNTRAINED = 32
FIRST_UNTRAINED_SEED = 2**20  # far from those that anyone trains
DRAWN_AT_ONCE = 8
NONE = Links(*[np.zeros(0, np.int32)] * 4)


class Role(NamedTuple):
    """A role that heads may bear.

    Attributes:
      text: where it is looked for.
      relation: its links, an index into the text's relations; -1 where an offset says it all.
      positional: whether its effect has no reference.
    """

    name: str
    text: str
    relation: int
    positional: bool


@functools.lru_cache(maxsize=4)  # two splits, of a measurement and of that which needs it
def texts_of(restored: Restored, split: str, most: int) -> list[dict[str, Texts]]:
    """By replica the texts that it is watched on, by name: OWN, REPEATS where no language says what is linked, and
    LABELLED where there are such.

    Args:
      most: of OWN, and of LABELLED.
    """
    pack, corpus = restored.pack, restored.corpus
    if corpus is None:
        seeds = [replica.data_seed for replica in pack.replicas]
        return [{OWN: _of_language(restored, split, seed).some(most)} for seed in seeds]
    watched = {OWN: _of_corpus(corpus, split, pack.model.seq_len, pack.model.causal).some(most)}
    if corpus.labelled is not None:
        labelled = _of_corpus(corpus.labelled, split, pack.model.seq_len, pack.model.causal)
        watched[LABELLED] = _with_counts(labelled.some(most), corpus)
    if not {DUPLICATE, INDUCTION} & {*watched[OWN].relations} and not corpus.has_floor:
        seed = ("tune", "test").index(split)
        watched[REPEATS] = texts.repeats(_common(corpus), REPEATS_TEXTS, pack.model.seq_len, corpus.bos, seed)
    watched[OWN] = _with_counts(watched[OWN], corpus)
    return [watched] * len(pack.replicas)


def roles_of(watched: dict[str, Texts], causal: bool) -> list[Role]:
    """The roles that can be looked for in a replica's texts of `tune`."""
    roles = [Role(name, OWN, -1, True) for name in (PREVIOUS, *(() if causal else (NEXT,)), OFFSET, LOCAL)]
    for text, seen in watched.items():
        for relation, name in enumerate(seen.relations):
            links = seen.linked(relation)
            one_offset = texts.num_queries(links) >= FEWEST_LINKS and texts.best_offset(links)[1] >= ONE_OFFSET
            taken = name in {role.name for role in roles}
            roles.append(Role(f"{name} ({text})" if taken else name, text, relation, bool(one_offset)))
    return roles


def width_of(watched: dict[str, Texts]) -> int:
    """Most links of a text, those of the positional roles included, so that one program serves all texts and roles."""
    local = [len(NEAR) * (seen.tokens.shape[1] - 1) for seen in watched.values()]
    return max(*local, *(int(np.bincount(seen.links.document).max(initial=0)) for seen in watched.values()))


def fixed_offset(role: Role, seen: dict[str, Texts]) -> int:
    """The best fixed offset of a role in the texts of `tune`; 0 of one without links."""
    return texts.best_offset(seen[role.text].linked(role.relation))[0] if role.relation >= 0 else 0


@functools.lru_cache(maxsize=4)
def passes(restored: Restored, split: str, most: int) -> dict[int, dict[str, Sums]]:
    """By place of each judged replica the sums of each of its texts, with a profile of OWN. The offset that each head
    was given is that at which it attends most on `tune`; on `tune` itself its attention there is known in the mean
    alone, the same for every file."""
    model, done, parting = restored.pack.model, {}, delimiters(restored.corpus)
    for place in restored.judged:
        watched = texts_of(restored, split, most)[place]
        offsets = None if split == "tune" else own_offsets(passes(restored, "tune", most)[place])
        given = restored.params_of(place), sums.Profile(offsets, parting), width_of(watched)
        found = {text: sums.of_model(model, given[0], seen, *given[1:]) for text, seen in watched.items()}
        if split == "tune":
            largest = effects.at_best_offset(found[OWN], apart=(1, -1))
            found[OWN] = found[OWN]._replace(own_LHF=largest[..., None] * found[OWN].tokens_F)
        done[place] = found
    return done


def own_offsets(found: dict[str, Sums]) -> np.ndarray:
    """The offset, int (L, H), at which each head attends most, that of the previous and of the next token aside."""
    return effects.best_offsets(found[OWN], apart=(1, -1))


def effects_of(role: Role, found: Sums, seen: Texts, offset: int, content: float, position: float) -> Effects:
    """The effects of a role, given the sums over its text.

    Args:
      offset: the role's best fixed one, chosen on `tune`.
      content, position: thresholds.
    """
    if role.relation < 0:
        return effects.positional(found, role.name, position)
    if role.positional:
        return effects.fixed(found, role.relation, position)
    links = seen.linked(role.relation)
    at_offset = np.bincount(seen.file[links.document[links.query - links.key == offset]], minlength=seen.num_files)
    return effects.content(found, role.relation, at_offset, content)


def best_untrained(
    restored: Restored, watched: dict[str, Texts], roles: list[Role], offsets: list[int], models: int
) -> dict[Role, float]:
    """The largest effect of each role among all heads of untrained models of the same shape, which are drawn as
    training draws them (step 0 of a seed); nan where their texts have no link.

    Args:
      watched: texts, of which the untrained models see a part.
      offsets: of each role the best fixed one.
      models: how many.
    """
    model, best, fewer, width = restored.pack.model, dict.fromkeys(roles, -np.inf), {}, width_of(watched)
    for text, seen in watched.items():
        fewer[text] = seen.some(max(FEWEST_UNTRAINED, len(seen.tokens) // SHARE_UNTRAINED))
    for params in _untrained(model, models):
        found = {text: sums.of_model(model, params, seen, None, width) for text, seen in fewer.items()}
        for role, offset in zip(roles, offsets, strict=True):
            if role.name == OFFSET:
                effect = effects.at_best_offset(found[OWN], apart=(1, -1))
            else:
                effect = effects_of(role, found[role.text], fewer[role.text], offset, 0.0, 0.0).effect
            best[role] = max(best[role], float(np.nanmax(effect, initial=-np.inf)))
    return {role: effect if np.isfinite(effect) else np.nan for role, effect in best.items()}


def _untrained(model: ModelConfig, models: int) -> Iterator[dict]:
    """Parameters of so many untrained models, a few drawn at once."""
    tokens = jax.ShapeDtypeStruct((1, 1), jnp.int32)
    one = lambda seed: Transformer(model).lazy_init(jax.random.key(seed), tokens)["params"]  # noqa: E731
    draw = jax.jit(jax.vmap(one))
    for first in range(0, models, DRAWN_AT_ONCE):
        drawn = draw(FIRST_UNTRAINED_SEED + first + np.arange(DRAWN_AT_ONCE, dtype=np.uint32))
        for place in range(min(DRAWN_AT_ONCE, models - first)):
            yield jax.tree.map(lambda leaf, place=place: leaf[place], drawn)


def _of_language(restored: Restored, split: str, seed: int) -> Texts:
    documents = doses.looked_at(restored.study, restored.pack.dose, split, seed)
    spoken = doses.spoken(restored.study.data, restored.pack.dose, seed)
    count, length = documents.tokens.shape
    width = restored.pack.model.seq_len
    tokens = np.pad(documents.tokens.astype(np.int64), ((0, 0), (0, width + 1 - length)))
    links = Links(*(np.asarray(column, np.int32) for column in documents.links))
    return Texts(tokens, np.full(count, length - 1, np.int32), np.arange(count), links, spoken.relations)


def _of_corpus(corpus: Corpus, split: str, seq_len: int, causal: bool) -> Texts:
    windows = eval_windows(corpus, split, seq_len)
    names = [corpus.file_of(corpus.names[document]) for document in windows.document]
    file = np.unique(names, return_inverse=True)[1]
    links, relations = NONE, ()
    if corpus.gold is not None:
        window, links = gold.in_windows(corpus.gold.links, windows)
        links, relations = links._replace(document=window.astype(np.int32)), corpus.gold.relations
        if conllu_text.is_source(corpus.source):
            links, relations = texts.by_direction(links, relations, causal)
    return Texts(windows.tokens.astype(np.int64), windows.length, file, links, relations)


def _with_counts(seen: Texts, corpus: Corpus) -> Texts:
    counts = np.bincount(corpus.tokens_of("train"), minlength=corpus.vocab_size)
    counts[corpus.bos] = len(corpus.tokens_of("train"))  # at the begin of every text, so not rare
    return dataclasses.replace(seen, counts=counts)


def _common(corpus: Corpus) -> np.ndarray:
    """The most frequent tokens of the train split that make up COMMON of it, BOS aside."""
    counts = np.bincount(corpus.tokens_of("train"), minlength=corpus.vocab_size)
    counts[corpus.bos] = 0
    order = np.argsort(-counts, kind="stable")
    shares = np.cumsum(counts[order]) / counts.sum()
    return order[: int(np.searchsorted(shares, COMMON)) + 1]


def delimiters(corpus: Corpus | None) -> tuple[int, ...]:
    """The tokens that are punctuation or a line's end, of text as bytes."""
    if corpus is None or corpus.has_floor or corpus.tokenizer is not None or corpus.bos != 256:
        return ()
    return tuple(string.punctuation.encode() + b"\n")
