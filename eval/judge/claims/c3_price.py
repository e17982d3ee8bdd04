"""C3: does multi-head cost about as much as single-head? Parameters, FLOPs, and step time and memory by launch."""

import dataclasses
import math

import pandas as pd

from eval.judge import intervals, rules
from eval.judge.evidence import Evidence
from eval.judge.paired import asides, decision
from eval.judge.paired.comparison import HEADS
from eval.judge.verdict import Shown, Verdict
from mha.budget import TOLERANCE
from train.files import write_table
from train.workdir import PRICES, read_measured

ID = "C3"
STATEMENT = "Several heads cost about as much as one"
RULE = (
    "supported: attention parameters equal, all non-embedding ones within {size:.1%}, and the 95 % intervals of the "
    "ratios of step time and of memory, h* to h = 1, within {least:.3f} to {most:.3f}; refuted: one wholly outside; "
    "else undecided; one verdict a path"
)
PATHS = {"auto": "the fast path", "reference": "plain attention"}
LAST = 5  # logged steps that a training loss is averaged over
UNIT = "times the step time of h = 1 on the fast path, 95 % interval over launches"
applies = decision.applies


def cells_to_price(evidence: Evidence) -> list[str]:
    """The cells whose steps are compared: of each group h = 1, and the h* of C1."""
    return [cell for pair in HEADS.pairs(evidence.losses.cells).values() for cell in pair]


def judge(evidence: Evidence) -> Verdict:
    """In `parts` one verdict a path, then one a path and d_model where there are several: `supported` if parameters are
    equal and the intervals of both ratios lie within the tolerance, `refuted` if one lies wholly outside; the claim is
    decided where the paths agree. Writes results/prices.csv, a row for each launch, cell and path that was timed."""
    found, asked, workdir = evidence.losses, evidence.config.claims, evidence.workdir
    records = [read_measured(workdir.price(launch), PRICES) for launch in range(asked.launches)]
    timed = pd.DataFrame([row for record in records if record for row in record["rows"]])
    if len(timed):
        write_table(workdir.results / "prices.csv", timed)
    bounds, pairs = (1 / (1 + asked.tolerance), 1 + asked.tolerance), HEADS.pairs(found.cells)
    rule = RULE.format(size=TOLERANCE, least=bounds[0], most=bounds[1])
    base = Verdict(ID, STATEMENT, rules.UNDECIDED, "", rule, asked.tolerance, 0.95)
    missing = _missing(cells_to_price(evidence), timed)
    if missing:
        said = f"On {evidence.corpus.source}, not judged: {missing}"
        return dataclasses.replace(base, missing=(missing,), sentence=said)
    cells = found.cells.set_index("cell")
    equal = all(_same_size(cells, *pair) for pair in pairs.values())
    parts = [_part(timed, path, words, pairs, bounds, equal) for path, words in PATHS.items()]
    by_d_model = [
        _part(timed, path, f"{words}, {name}", {name: pair}, bounds, _same_size(cells, *pair))
        for path, words in PATHS.items()
        for name, pair in pairs.items()
        if len(pairs) > 1
    ]
    verdicts, fast = {part["verdict"] for part in parts}, parts[0]
    counts = [
        f"{name}: h* = {cells.num_heads[right]}, {cells.flops_per_token[right] / cells.flops_per_token[left]:.3f} "
        f"times the FLOPs, {cells.exps_per_token[right] / cells.exps_per_token[left]:g} times the exps a token"
        for name, (left, right) in pairs.items()
    ]
    at_equal_time = _at_equal_time(evidence, pairs, timed)
    more = tuple(
        f"{part['name']}: {_ends(part, 'step_ms')} times the step time and {_ends(part, 'memory_bytes')} times the "
        f"memory, {part['verdict']}."
        for part in (*parts, *by_d_model)
    )
    return dataclasses.replace(
        base,
        verdict=verdicts.pop() if len(verdicts) == 1 else rules.UNDECIDED,
        sentence=_sentence(parts, pairs, cells, equal, timed, evidence),
        effect=fast["step_ms"],
        low=fast["step_ms_low"],
        high=fast["step_ms_high"],
        n=int(timed.launch.nunique()),
        about="launches",
        parts=(*parts, *by_d_model),
        notes=(
            *counts,
            *(
                f"{each['name']}: after {each['seconds']:.1f} s of steps, when the cheaper of the two ends, the "
                f"training loss is {each['losses'][0]:.3f} at h = 1 and {each['losses'][1]:.3f} at h* (the dearer one "
                f"in the middle of its schedule)."
                for each in at_equal_time
            ),
        ),
        details={"counts": counts, "at_equal_time": at_equal_time},
        shown=Shown(f"× {_ends(fast, 'step_ms')}", UNIT, more),
    )


def _missing(wanted: list[str], timed: pd.DataFrame) -> str:
    """What keeps the `wanted` cells from being compared by the launches, '' where nothing does."""
    asked = {(cell, path) for cell in wanted for path in PATHS}
    unfit = asked - (set(zip(timed.cell, timed.path, strict=True)) if len(timed) else set())
    if not wanted:
        return "The tables have no h = 1 and a cell with more heads beside it to compare."
    if unfit == asked:
        return "Its step times have not been measured: claims.launches processes do it at a study's end."
    if unfit:
        named = ", ".join(f"{cell} on {PATHS[path]}" for cell, path in sorted(unfit))
        return f"No launch could time {named}: that does not fit the memory."
    one = "One launch gives no interval; two are the least, claims.launches sets them."
    return one if timed.launch.nunique() < 2 else ""


def _ends(part: dict, quantity: str) -> str:
    """A ratio of one path with its interval."""
    return f"{part[quantity]:.2f} [{part[f'{quantity}_low']:.2f}, {part[f'{quantity}_high']:.2f}]"


def _same_size(cells: pd.DataFrame, cell: str, other: str) -> bool:
    """Equal attention parameters, and all non-embedding ones equal to TOLERANCE."""
    sizes = cells.params_non_embedding
    near = abs(sizes[cell] - sizes[other]) <= TOLERANCE * max(sizes[cell], sizes[other])
    return bool(near and cells.params_attention[cell] == cells.params_attention[other])


def _part(timed: pd.DataFrame, path: str, name: str, pairs: dict, bounds: tuple[float, float], equal: bool) -> dict:
    """The ratios of `pairs` on one path, with their verdict."""
    timed = timed[timed.path == path]
    ratios = {quantity: _ratio(timed, pairs, quantity) for quantity in ("step_ms", "memory_bytes")}
    numbers = {
        f"{quantity}{suffix}": value
        for quantity, found in ratios.items()
        for suffix, value in zip(("", "_low", "_high"), found, strict=False)
    }
    return {"name": name, "path": path, "verdict": decide([*ratios.values()], bounds, equal), **numbers}


def _ratio(timed: pd.DataFrame, pairs: dict, quantity: str) -> intervals.Interval:
    """exp of the t interval over launches of the mean log ratio of the pairs: h* to h = 1, paired within a launch."""
    table = timed.pivot_table(index="launch", columns="cell", values=quantity)
    logs = sum((table[right] / table[left]).map(math.log) for left, right in pairs.values()) / len(pairs)
    interval = intervals.over_seeds(logs.dropna().to_numpy())
    return intervals.Interval(math.exp(interval.mean), math.exp(interval.low), math.exp(interval.high))


def decide(ratios: list[intervals.Interval], bounds: tuple[float, float], equal: bool) -> str:
    """The verdict of some ratios by RULE.

    Args:
      equal: whether the cells are of the same size.
    """
    if any(one.high < bounds[0] or one.low > bounds[1] for one in ratios):
        return rules.REFUTED
    inside = all(bounds[0] <= one.low and one.high <= bounds[1] for one in ratios)
    return rules.SUPPORTED if equal and inside else rules.UNDECIDED


def _sentence(parts, pairs, cells, equal: bool, timed, evidence: Evidence) -> str:
    heads = ", ".join(f"{cells.num_heads[right]} at {name}" for name, (_, right) in pairs.items())
    size = "at the same size" if equal else "at sizes that differ"
    said = f"On {evidence.corpus.source}, {size}, h* ({heads}) against h = 1, over {timed.launch.nunique()} launches: "
    said += "; ".join(
        f"on {part['name']} a step takes {part['step_ms']:.2f} times as long ({part['step_ms_low']:.2f} to "
        f"{part['step_ms_high']:.2f}) and {part['memory_bytes']:.2f} times the memory: {part['verdict']}"
        for part in parts
    )
    diverged = asides.divergence(evidence.losses, cells_to_price(evidence))
    named = {"Attention": cells.params_attention, "non-embedding": cells.params_non_embedding}
    apart = {
        name: max(abs(sizes[right] / sizes[left] - 1) for left, right in pairs.values())
        for name, sizes in named.items()
    }
    parameters = ", ".join(
        f"{name} parameters {f'differ by up to {most:.3%}' if most else 'are equal'}" for name, most in apart.items()
    )
    return f"{said}. {parameters}; of the judged runs, {diverged}."


def _at_equal_time(evidence: Evidence, pairs: dict, timed: pd.DataFrame) -> list[dict]:
    """Training loss of both cells when the one whose whole training takes less time has ended, by the launches' median
    step times on the fast path."""
    step_ms, outcome = timed[timed.path == "auto"].groupby("cell").step_ms.median(), []
    for name, pair in pairs.items():
        paced = [(evidence.curves[cell], step_ms[cell]) for cell in pair]
        if all(len(curve) for curve, _ in paced):
            end = min((curve.index.max() + 1) * time for curve, time in paced)
            losses = [float(curve[(curve.index + 1) * time <= end].tail(LAST).mean()) for curve, time in paced]
            outcome.append({"name": name, "seconds": end / 1e3, "losses": losses})
    return outcome
