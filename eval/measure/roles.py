"""What each head attends to: its effect in every role, above what it would have anyway and above untrained heads."""

import numpy as np
import pandas as pd

from eval.heads.roles import edges, texts, watched
from eval.heads.roles.effects import LOCAL, NEXT, OFFSET, PREVIOUS, REFERENCES, Effects
from eval.heads.roles.sums import NEAR, Sums
from eval.heads.roles.texts import Texts
from eval.heads.roles.watched import Role
from eval.restore import Restored
from mha.transformer import ModelConfig
from train.config import StudyConfig
from train.data.relations.language import Links

IN_STUDY = True
TESTED = 3  # heads of each role, the best on `tune`, whose edges are taken out
EDGE_TEXTS = 128  # on which
EVERY = -1  # in place of a layer or a head: all of them together


def lacks(config: StudyConfig, model: ModelConfig) -> str:
    return "" if config.heads.texts else "heads are watched on no text, heads.texts=0."


def settings(config: StudyConfig) -> dict:
    heads, claims = config.heads, config.claims
    return {
        "texts": heads.texts,
        "untrained": heads.untrained,
        "content": claims.content,
        "position": claims.position,
    }


def measure(restored: Restored, split: str, chosen: dict) -> pd.DataFrame:
    """One row a replica that did not diverge, layer, head and role: `text` it was looked for in, `positional` or not,
    `offset` (the role's best fixed one), `queries` with a link and effective `files`, `mass`, `top` (share of queries
    whose largest weight is on a linked key), `reference` (the largest, and `which` it is), `effect` above it with
    `error`, `low`, `high`; `above`, the p-value of an effect of at most the role's threshold; simultaneous limits
    `least`, `most`; and, on `test`, `untrained`, the largest effect of an untrained head, and whether the head is
    `called` by the role: enough links and files, `least` above the threshold, and the effect above `untrained`.

    On `test`, of causal models, the heads that were best on `tune` also have `rise`, what the loss of the role's
    targets rises by without this attention (nats; `rise_low`, `rise_high` 95 % over files). In rows whose head is -1
    `effect` and `mass` are sums over the layer's heads, and `rise` is without this attention in all of them; where the
    layer is -1 too, in all heads of the model. `gain` is by how much less the targets of queries with a link cost than
    others, `others` what these cost.

    Runs that only choose a rate, and those whose weights were not drawn, are left out.
    """
    if not restored.judged:
        return pd.DataFrame({"replica": pd.Series(dtype=str)})
    most, models = chosen["texts"], chosen["untrained"] * restored.pack.model.num_layers
    all_seen = {which: watched.texts_of(restored, which, most) for which in {"tune", split}}
    passed = {which: watched.passes(restored, which, most) for which in {"tune", split}}
    tables, untrained = [], {}
    for place in restored.judged:
        seen = all_seen[split][place]
        roles = watched.roles_of(all_seen["tune"][place], restored.pack.model.causal)
        offsets = [watched.fixed_offset(role, all_seen["tune"][place]) for role in roles]
        if split == "test" and id(seen) not in untrained:
            untrained[id(seen)] = watched.best_untrained(restored, seen, roles, offsets, models)
        for role, offset in zip(roles, offsets, strict=True):
            thresholds = chosen["content"], chosen["position"]
            found = watched.effects_of(role, passed[split][place][role.text], seen[role.text], offset, *thresholds)
            rows = _rows(role, offset, found)
            if role.name == OFFSET and split == "tune":  # known in the mean alone
                rows[["error", "low", "high", "above", "least", "most"]] = np.nan
            if split == "test":
                threshold = chosen["position"] if role.positional else chosen["content"]
                best = untrained[id(seen)][role]
                called = found.enough & (rows.least > threshold) & (rows.effect > best)
                rows = rows.assign(untrained=best, called=called)
                on_tune = watched.effects_of(
                    role, passed["tune"][place][role.text], all_seen["tune"][place][role.text], offset, *thresholds
                )
                rows = _with_rises(restored, place, role, seen, passed["tune"][place], on_tune, rows)
            tables.append(rows.assign(replica=restored.pack.replicas[place].name))
    return pd.concat(tables, ignore_index=True)


def _rows(role: Role, offset: int, found: Effects) -> pd.DataFrame:
    """A row a head."""
    layers, heads = found.effect.shape
    place = pd.DataFrame({"layer": np.repeat(np.arange(layers), heads), "head": np.tile(np.arange(heads), layers)})
    about = place.assign(
        role=role.name, text=role.text, positional=role.positional, offset=offset, queries=found.queries
    ).assign(files=found.files)
    names = ("mass", "top", "reference", "effect", "error", "low", "high", "above", "least", "most")
    values = {name: getattr(found, name).ravel() for name in names}
    which = np.array(("", *REFERENCES))[0 * found.which if role.positional else 1 + found.which].ravel()
    return about.assign(**values, which=which)


def _with_rises(
    restored: Restored,
    replica: int,
    role: Role,
    seen: dict[str, Texts],
    on_tune: dict[str, Sums],
    best: Effects,
    rows: pd.DataFrame,
) -> pd.DataFrame:
    """`rows` with the sums over heads, and what taking the role's edges out does."""
    layers, heads = best.effect.shape
    summed = rows.groupby("layer")[["effect", "mass"]].sum().reset_index().assign(head=EVERY)
    summed = pd.concat([summed, pd.DataFrame({"layer": [EVERY], "head": [EVERY]})])
    shared = rows[["role", "text", "positional", "offset", "queries", "files"]].iloc[0].to_dict()
    rows = pd.concat([rows, summed.assign(**shared, called=False)], ignore_index=True)
    model, columns = restored.pack.model, ["rise", "rise_low", "rise_high", "gain", "others"]
    if not model.causal or not rows.queries.iloc[0]:
        return rows.assign(**dict.fromkeys(columns, np.nan))
    order = np.argsort(-np.nan_to_num(best.effect.ravel(), nan=-np.inf), kind="stable")[:TESTED]
    selections = [(int(one) // heads, int(one) % heads) for one in order]
    selections += [(layer, EVERY) for layer in range(layers)] + [(EVERY, EVERY)]
    fewer, width = seen[role.text].some(EDGE_TEXTS), watched.width_of(seen)
    params = restored.params_of(replica)
    parts = {}
    for layer, head in selections:
        chosen = np.zeros((layers, heads), bool)
        chosen[slice(None) if layer == EVERY else layer, slice(None) if head == EVERY else head] = True
        offset = watched.own_offsets(on_tune)[layer, head] if role.name == OFFSET and head != EVERY else None
        parts.setdefault(offset, []).append(((layer, head), chosen))
    rises = []
    for offset, group in parts.items():
        links = _edges(role, fewer, offset)
        if links is None:
            continue
        found = edges.without(model, params, fewer, links, np.stack([chosen for _, chosen in group]), width)
        for (place, _), rise_F in zip(group, found.rise_SF, strict=True):
            mean, low, high = edges.interval(found.queries_F, rise_F)
            gain = found.others - found.linked
            rises.append((*place, mean, low, high, gain, found.others))
    found = pd.DataFrame(rises, columns=["layer", "head", *columns])
    return rows.merge(found, how="left", on=["layer", "head"])


def _edges(role: Role, seen: Texts, offset: int | None) -> Links | None:
    """The links of a role, of those that an offset defines too; None of OFFSET where no head says which."""
    if role.relation >= 0:
        return seen.linked(role.relation)
    if role.name == OFFSET and offset is None:
        return None
    near = {PREVIOUS: (1,), NEXT: (-1,), LOCAL: NEAR, OFFSET: (offset,)}[role.name]
    return texts.at_offsets(seen, near)
