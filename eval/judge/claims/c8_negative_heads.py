"""C8: do some heads hurt, so that the loss is lower without them?"""

import dataclasses

import numpy as np
import pandas as pd

from eval.judge import intervals, rule_m, rules
from eval.judge.evidence import Evidence
from eval.judge.paired import decision
from eval.judge.rule_m import OPEN
from eval.judge.single import by_model, negative
from eval.judge.verdict import Verdict

ID = "C8"
STATEMENT = "Removing some heads lowers the loss"
RULE = f"{negative.RULE.format(margin=negative.MARGIN, files=intervals.ENOUGH_DOCUMENTS)}; {rule_m.RULE}"
KINDS = ("zero", "mean")
OUTCOMES = {
    rules.SUPPORTED: f"some head costs the model more than {negative.MARGIN:g} nats/token",
    rules.REFUTED: f"no head costs the model more than {negative.MARGIN:g} nats/token",
    rules.UNDECIDED: f"it is open whether some head costs the model more than {negative.MARGIN:g} nats/token",
}
LACKS = (
    "Zero and mean ablation were not measured; ablation.kinds names them, --mode=eval --measure=ablation takes them."
)


def applies(evidence: Evidence) -> str:
    table = _table(evidence)
    measured = len(table) and set(KINDS) <= {*table.ablation}
    return decision.applies(evidence) or ("" if measured else LACKS)


def look(evidence: Evidence) -> dict | None:
    return None if _missing(evidence, _table(evidence)) else by_model.look(evidence)


def judge(evidence: Evidence) -> Verdict:
    """In the primary cell; the others are shown. Details have each confirmed head with its effects on test."""
    table = _table(evidence)
    lacks = _missing(evidence, table)
    verdict = Verdict(
        ID, STATEMENT, rules.UNDECIDED, "", RULE, negative.MARGIN, evidence.confidence, missing=tuple(lacks)
    )
    if lacks:
        return dataclasses.replace(verdict, sentence=f"On {evidence.corpus.source}, not tested: {' '.join(lacks)}")
    answers, confirmed, lowest = {}, [], []
    for cell in by_model.cells(evidence):
        answers[cell] = {}
        for name, diverged in by_model.runs(evidence, cell).items():
            mine = table[(table.cell == cell) & (table.replica == name)]
            if diverged or mine.empty:
                answers[cell][name] = OPEN
                continue
            tune, test, tokens, heads = arrays(mine)
            found = negative.judge(tune, test, tokens, alpha=1 - evidence.confidence)
            answers[cell][name] = found.answer
            place = int(np.argmin(found.effect))
            lowest.append({"cell": cell, "replica": name, **heads[place], "effect": float(found.effect[place])})
            confirmed += [
                {"cell": cell, "replica": name, **heads[place], "effect": float(found.effect[place])}
                for place in np.flatnonzero(found.confirmed)
            ]
    decided = by_model.decided(verdict, evidence, answers, OUTCOMES, tokens)
    primary = [each["effect"] for each in lowest if each["cell"] == by_model.primary(evidence)]
    least = (
        f"In {by_model.primary(evidence)} the head that helps least changes the loss by {min(primary):+.4f} to "
        f"{max(primary):+.4f} nats/token when it is closed (the larger of zero and mean ablation, by seed)."
    )
    more = (*decided.shown.more, *(f"{each['cell']}, {each['replica']}: layer {each['layer']}, head {each['head']} "
            f"changes the loss by {each['effect']:+.4f} nats/token when closed." for each in confirmed))  # fmt: skip
    return dataclasses.replace(
        decided,
        notes=(least,) if primary else (),
        details={"confirmed": confirmed, "lowest": lowest},
        shown=dataclasses.replace(decided.shown, more=more),
    )


def arrays(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict]]:
    """Of one run: rises on tune (2, heads), on test (2, heads, files), tokens of those files, and the heads' names."""
    rows = rows[rows.ablation.isin(KINDS)]
    heads = ["layer", "head"]
    summed = rows[rows.split == "tune"].pivot_table(index=heads, columns="ablation", values="rise", aggfunc="sum")
    test = rows[rows.split == "test"].pivot_table(
        index=heads, columns=["ablation", "file"], values="rise", aggfunc="sum"
    )
    tokens = rows[rows.split == "test"].groupby("file").tokens.first().sort_index()
    by_kind = np.stack([test[kind].loc[summed.index, tokens.index].to_numpy() for kind in KINDS])
    named = [{"layer": int(layer), "head": int(head)} for layer, head in summed.index]
    return summed[[*KINDS]].to_numpy().T, by_kind, tokens.to_numpy(), named


def _table(evidence: Evidence) -> pd.DataFrame:
    """Results of the measurement `ablation`; empty where there are none."""
    path = evidence.workdir.results / "ablation.parquet"
    return pd.read_parquet(path) if path.exists() else pd.DataFrame(columns=["cell", "split", "file", "replica"])


def _missing(evidence: Evidence, table: pd.DataFrame) -> list[str]:
    cell = by_model.primary(evidence)
    return by_model.missing(evidence, table[(table.cell == cell) & (table.split == "test")], cell, LACKS)
