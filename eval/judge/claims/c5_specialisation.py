"""C5: do heads take distinct functions without supervision? Each role is a question of its own."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import pandas as pd

from eval.heads.roles.texts import FEWEST_LINKS, INDUCTION
from eval.judge import intervals, rule_m, rules, stats
from eval.judge.evidence import Evidence
from eval.judge.rule_m import NO, OPEN, YES, Shares
from eval.judge.single import by_model
from eval.judge.verdict import Shown, Verdict
from train.config import ClaimsConfig
from train.workdir import read_table

ID = "C5"
STATEMENT = "Heads take distinct functions without supervision"
RULE = (
    "a seed says yes to a role if its best head on tune has, on test, an effect above the threshold ({content:g} for "
    "content, {position:g} for position; Holm over the roles, t over files) and above every head of the untrained "
    "models, no if every head's simultaneous upper limit is below the threshold; " + rule_m.RULE + "; the claim is "
    "supported in a cell if some role is, refuted if every role that can be tested is, else undecided"
)
LEARNT_EXCESS = 0.05  # nats a bit above its floor at most: a relation of a language is learnt
LEARNT_GAIN = 0.5  # of the loss of other targets at least that copied ones cost less: so is induction


class Best(NamedTuple):
    """One role of one model on `test`: `above`, the p-value of its best head on `tune` for an effect of at most the
    threshold; whether that head `outdoes` every untrained one; `most`, the largest simultaneous upper limit of any
    head; and the `threshold`."""

    above: float
    outdoes: bool
    most: float
    threshold: float


def answers(roles: Mapping[str, Best], alpha: float = 0.05) -> dict[str, str]:
    """What one model says to each role: YES under Holm over all of `roles`, else NO or OPEN."""
    p_values = [role.above if role.outdoes else 1.0 for role in roles.values()]
    passes = stats.rejected(p_values, alpha, "holm")
    return {
        name: YES if passed else NO if role.most < role.threshold else OPEN
        for (name, role), passed in zip(roles.items(), passes, strict=True)
    }


def overall(verdicts: Iterable[str | None]) -> str:
    """The claim's verdict in a cell from those of its roles, None of one that cannot be tested."""
    tested = [verdict for verdict in verdicts if verdict]
    if rules.SUPPORTED in tested:
        return rules.SUPPORTED
    return rules.REFUTED if tested and {*tested} == {rules.REFUTED} else rules.UNDECIDED


def applies(evidence: Evidence) -> str:
    return (
        "" if len(by_model.rows(evidence, "roles")) else "No roles are measured; --mode=eval --measure=roles does it."
    )


def look(evidence: Evidence) -> dict | None:
    return {"seeds": sorted(map(list, by_model.seeds(evidence)))}


def judge(evidence: Evidence) -> Verdict:
    """In the cell that answers, with the roles of every cell as parts."""
    claims, found = evidence.config.claims, by_model.rows(evidence, "roles")
    parts = [part for name, of_cell in found.groupby("cell", sort=False) for part in _of_cell(evidence, name, of_cell)]
    cell = by_model.primary(evidence)
    mine = [part for part in parts if part["cell"] == cell]
    verdict = overall(part["verdict"] for part in mine)
    rule = RULE.format(content=claims.content, position=claims.position)
    source = evidence.config.data.source
    named = {
        words: [part["role"] for part in mine if part["verdict"] == which]
        for which, words in (
            (rules.SUPPORTED, "most models have a head for"),
            (rules.REFUTED, "most have none for"),
            (rules.UNDECIDED, "it is open for"),
        )
    }
    said = [f"{words} {', '.join(roles)}" for words, roles in named.items() if roles]
    untested = [f"{part['role']} ({part['why']})" for part in mine if part["verdict"] is None]
    sentence = f"On {source}, in {cell}: {'; '.join(said) or 'no role can be tested'}."
    notes = (f"Not testable: {', '.join(untested)}.",) if untested else ()
    tested = [part for part in mine if part["verdict"]]
    files = max((part["files"] for part in mine), default=0.0)
    return Verdict(
        ID,
        STATEMENT,
        verdict,
        sentence,
        rule,
        claims.content,
        evidence.confidence,
        n=max((part["seeds"] for part in tested), default=0),
        files=files,
        about="new documents" if files >= intervals.ENOUGH_DOCUMENTS else "these documents",
        missing=() if tested else ("no role of the cell that answers can be tested",),
        parts=tuple(parts),
        notes=notes,
        shown=Shown(more=tuple(_said(part) for part in parts if part["cell"] == cell)),
    )


def _said(part: dict) -> str:
    if part["verdict"] is None:
        return f"{part['role']}: not testable, {part['why']}."
    return (
        f"{part['role']}: {part['verdict']}; {part['yes']} of {part['seeds']} models yes, {part['no']} no, "
        f"{part['open']} open; the best head's effect {part['effect']:.2f} (median), of untrained heads at most "
        f"{part['untrained']:.2f}."
    )


def _of_cell(evidence: Evidence, cell: str, found: pd.DataFrame) -> list[dict]:
    """What each role of a cell comes to."""
    claims, seeds = evidence.config.claims, by_model.seeds(evidence)
    of_seed = {seed: _of_model(rows, claims) for seed, rows in by_model.by_seed(found).items()}
    said = {seed: answers(roles, 1 - evidence.confidence) for seed, roles in of_seed.items()}
    learnt = _learnt(evidence, cell, found)
    of_heads, parts = found[found["head"] >= 0], []
    for role, rows in of_heads.groupby("role", sort=False):
        best, rows = by_model.best_on_tune(rows), rows[rows.split == "test"]
        queries, files = int(rows.queries.max()), float(rows.files.max())
        having = {(row.init_seed, row.data_seed) for row in rows.itertuples()}  # of doses some seeds lack a relation
        asked = [seed for seed in seeds if seed in having or seed not in of_seed]
        counted = [seed for seed in asked if learnt.get((seed, role), True)]
        shares = rule_m.decide([said.get(seed, {}).get(role, OPEN) for seed in counted], evidence.confidence)
        why = _why_not(queries, files, shares, len(asked))
        parts.append(
            {
                "name": f"{cell}: {role}",
                "cell": cell,
                "role": role,
                "verdict": None if why else shares.verdict,
                "why": why,
                **{field: getattr(shares, field) for field in ("yes", "no", "open", "seeds", "yes_low", "no_low")},
                "effect": float(best.effect.median()),
                "untrained": float(rows.untrained.max()),
                "called": float(rows.groupby("replica").called.sum().mean()),
                "queries": queries,
                "files": files,
            }
        )
    return parts


def _why_not(queries: int, files: float, shares: Shares, planned: int) -> str:
    """Why a role cannot be tested; '' where it can."""
    if queries < FEWEST_LINKS:
        return f"{queries} links, {FEWEST_LINKS} are the least"
    if files < intervals.ENOUGH_DOCUMENTS:
        return f"{files:.0f} effective files, {intervals.ENOUGH_DOCUMENTS} are the least"
    if shares.verdict is None:
        learnt = f"{shares.seeds} of {planned} models learnt it" if shares.seeds < planned else f"{planned} seeds"
        return f"{learnt}, {rule_m.FEWEST_SEEDS} are the least"
    return ""


def _of_model(rows: pd.DataFrame, claims: ClaimsConfig) -> dict[str, Best]:
    """By role what one model shows, of roles with enough links and files."""
    found, rows = {}, rows[rows["head"] >= 0]
    for role, of_role in rows.groupby("role", sort=False):
        tune, test = (of_role[of_role.split == split].set_index(["layer", "head"]) for split in ("tune", "test"))
        enough = len(test) and test.queries.iloc[0] >= FEWEST_LINKS and test.files.iloc[0] >= intervals.ENOUGH_DOCUMENTS
        if enough and len(tune) and tune.effect.notna().any():
            best, positional = test.loc[tune.effect.idxmax()], bool(test.positional.iloc[0])
            threshold = claims.position if positional else claims.content
            outdoes = bool(best.effect > best.untrained)
            found[role] = Best(float(best.above), outdoes, float(test.most.max()), threshold)
    return found


def _learnt(evidence: Evidence, cell: str, found: pd.DataFrame) -> dict[tuple, bool]:
    """By (seed, role), of the roles that have to be learnt first, whether the model learnt it."""
    learnt = {}
    whole = found[(found.split == "test") & (found.role == INDUCTION) & (found.layer == -1)]
    for row in whole.itertuples():
        learnt[(row.init_seed, row.data_seed), INDUCTION] = bool(row.gain >= LEARNT_GAIN * row.others)
    path = evidence.workdir.results / "relations.parquet"
    if path.exists():
        relations = read_table(path)
        mine = relations[(relations.cell == cell) & (relations.split == "test")]
        mine = mine.merge(found[["replica", "init_seed", "data_seed"]].drop_duplicates())
        for row in mine[mine.relation.isin(found.role)].itertuples():
            learnt[(row.init_seed, row.data_seed), row.relation] = bool(row.excess <= LEARNT_EXCESS)
    return learnt
