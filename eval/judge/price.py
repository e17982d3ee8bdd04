"""C3: does multi-head cost about as much as single-head? Parameters, FLOPs, and step time and memory by launch."""

import dataclasses
import math

import pandas as pd

from eval.judge import asides, intervals, rules
from eval.judge.comparison import CLAIMS, Verdict
from eval.judge.evidence import Evidence
from eval.tables import training_curve
from mha.budget import TOLERANCE
from train.config import StudyConfig
from train.files import write_table
from train.grid import Replica
from train.workdir import PRICES, Workdir, read_measured

CLAIM = "Several heads cost about as much as one"
PATHS = {"auto": "the fast path", "reference": "plain attention"}
LAST = 5  # logged steps that a training loss is averaged over


def to_measure(found: Evidence) -> dict[str, tuple[str, str]]:
    """By group, the two cells whose price is compared: h = 1, and the h* of C1."""
    return CLAIMS[0].pairs(found.cells)


def launches(workdir: Workdir, config: StudyConfig) -> pd.DataFrame:
    """A row for each launch, cell and path that was timed; results/prices.csv."""
    records = [read_measured(workdir.price(launch), PRICES) for launch in range(config.claims.launches)]
    rows = pd.DataFrame([row for record in records if record for row in record["rows"]])
    if len(rows):
        write_table(workdir.results / "prices.csv", rows)
    return rows


def judge(found: Evidence, workdir: Workdir, config: StudyConfig, source: str) -> Verdict:
    """The verdict on C3, and in `parts` one a path, then one a path and d_model where there are several: `supported` if
    parameters are equal and the intervals of both ratios lie within the tolerance, `refuted` if one lies wholly
    outside; the claim is decided where the paths agree.

    Args:
      source: name of the corpus.
    """
    tolerance = config.claims.tolerance
    bounds = (1 / (1 + tolerance), 1 + tolerance)
    rule = (
        f"supported: attention parameters equal, all non-embedding ones within {TOLERANCE:.1%}, and the 95 % intervals "
        f"of the ratios of step time and of memory, h* to h = 1, within {bounds[0]:.3f} to {bounds[1]:.3f}; refuted: "
        f"one wholly outside; else undecided; one verdict a path"
    )
    base = Verdict("C3", CLAIM, rules.UNDECIDED, "", rule, tolerance, 0.95)
    pairs, timed = to_measure(found), launches(workdir, config)
    names = {cell for pair in pairs.values() for cell in pair}
    asked = {(cell, path) for cell in names for path in PATHS}
    unfit = asked - (set(zip(timed.cell, timed.path, strict=True)) if len(timed) else set())
    missing = []
    if not pairs:
        missing.append("The tables have no h = 1 and a cell with more heads beside it to compare.")
    elif unfit == asked:
        missing.append("Its step times have not been measured: claims.launches processes do it at a study's end.")
    elif unfit:
        named = ", ".join(f"{cell} on {PATHS[path]}" for cell, path in sorted(unfit))
        missing.append(f"No launch could time {named}: that does not fit the memory.")
    elif timed.launch.nunique() < 2:
        missing.append("One launch gives no interval; two are the least, claims.launches sets them.")
    if missing:
        return dataclasses.replace(base, missing=tuple(missing), sentence=f"On {source}, not judged: {missing[0]}")
    cells = found.cells.set_index("cell")
    equal = all(_same_size(cells, *pair) for pair in pairs.values())
    parts = [_part(timed, path, words, pairs, bounds, equal) for path, words in PATHS.items()]
    by_d_model = [
        _part(timed, path, f"{words}, {name}", {name: pair}, bounds, _same_size(cells, *pair))
        for path, words in PATHS.items()
        for name, pair in pairs.items()
        if len(pairs) > 1
    ]
    verdicts = {part["verdict"] for part in parts}
    verdict = verdicts.pop() if len(verdicts) == 1 else rules.UNDECIDED
    counts = [
        f"{name}: h* = {cells.num_heads[right]}, {cells.flops_per_token[right] / cells.flops_per_token[left]:.3f} "
        f"times the FLOPs, {cells.exps_per_token[right] / cells.exps_per_token[left]:g} times the exps a token"
        for name, (left, right) in pairs.items()
    ]
    details = {"counts": counts, "at_equal_time": _at_equal_time(workdir, found, pairs, timed)}
    fast = parts[0]
    return Verdict(
        "C3",
        CLAIM,
        verdict,
        _sentence(parts, pairs, cells, equal, timed, found, source),
        rule,
        tolerance,
        0.95,
        effect=fast["step_ms"],
        low=fast["step_ms_low"],
        high=fast["step_ms_high"],
        n=int(timed.launch.nunique()),
        about="launches",
        parts=(*parts, *by_d_model),
        notes=tuple(counts + [_equal_time_note(each) for each in details["at_equal_time"]]),
        details=details,
    )


def _same_size(cells: pd.DataFrame, cell: str, other: str) -> bool:
    """Equal attention parameters, and all non-embedding ones equal to TOLERANCE."""
    sizes = cells.params_non_embedding
    near = abs(sizes[cell] - sizes[other]) <= TOLERANCE * max(sizes[cell], sizes[other])
    return bool(near and cells.params_attention[cell] == cells.params_attention[other])


def _part(timed: pd.DataFrame, path: str, name: str, pairs: dict, bounds: tuple[float, float], equal: bool) -> dict:
    """The ratios of `pairs` on one path, with their verdict."""
    timed = timed[timed.path == path]
    ratios = {quantity: _ratio(timed, pairs, quantity) for quantity in ("step_ms", "memory_bytes")}
    return {"name": name, "path": path, "verdict": _verdict(ratios.values(), bounds, equal), **_numbers(ratios)}


def _ratio(timed: pd.DataFrame, pairs: dict, quantity: str) -> intervals.Interval:
    """exp of the t interval over launches of the mean log ratio of the pairs: h* to h = 1, paired within a launch."""
    table = timed.pivot_table(index="launch", columns="cell", values=quantity)
    logs = sum((table[right] / table[left]).map(math.log) for left, right in pairs.values()) / len(pairs)
    found = intervals.over_seeds(logs.dropna().to_numpy())
    return intervals.Interval(math.exp(found.mean), math.exp(found.low), math.exp(found.high))


def _verdict(ratios, bounds: tuple[float, float], equal: bool) -> str:
    outside = [one.high < bounds[0] or one.low > bounds[1] for one in ratios]
    inside = [bounds[0] <= one.low and one.high <= bounds[1] for one in ratios]
    if any(outside):
        return rules.REFUTED
    return rules.SUPPORTED if equal and all(inside) else rules.UNDECIDED


def _numbers(ratios: dict) -> dict:
    return {
        f"{name}{suffix}": value
        for name, found in ratios.items()
        for suffix, value in (("", found.mean), ("_low", found.low), ("_high", found.high))
    }


def _sentence(parts, pairs, cells, equal: bool, timed, found: Evidence, source: str) -> str:
    heads = ", ".join(f"{cells.num_heads[right]} at {name}" for name, (_, right) in pairs.items())
    size = "at the same size" if equal else "at sizes that differ"
    said = f"On {source}, {size}, h* ({heads}) against h = 1, over {timed.launch.nunique()} launches: "
    said += "; ".join(
        f"on {part['name']} a step takes {part['step_ms']:.2f} times as long ({part['step_ms_low']:.2f} to "
        f"{part['step_ms_high']:.2f}) and {part['memory_bytes']:.2f} times the memory: {part['verdict']}"
        for part in parts
    )
    diverged = asides.divergence(found, [cell for pair in pairs.values() for cell in pair])
    return f"{said}. {_parameters(cells, pairs)}; of the judged runs, {diverged}."


def _parameters(cells: pd.DataFrame, pairs: dict) -> str:
    """'Attention parameters are equal, non-embedding parameters differ by up to 0.012%'."""
    said = []
    for name, sizes in (("Attention", cells.params_attention), ("non-embedding", cells.params_non_embedding)):
        apart = max(abs(sizes[right] / sizes[left] - 1) for left, right in pairs.values())
        said.append(f"{name} parameters {f'differ by up to {apart:.3%}' if apart else 'are equal'}")
    return ", ".join(said)


def _at_equal_time(workdir: Workdir, found: Evidence, pairs: dict, timed: pd.DataFrame) -> list[dict]:
    """Training loss of both cells when the one whose whole training takes less time has ended, by the launches' median
    step times on the fast path."""
    step_ms, outcome = timed[timed.path == "auto"].groupby("cell").step_ms.median(), []
    for name, pair in pairs.items():
        curves = [judged_curve(workdir, cell, found) for cell in pair]
        times = [step_ms[cell] for cell in pair]
        if any(curve.empty for curve in curves):
            continue
        end = min((curve.index.max() + 1) * time for curve, time in zip(curves, times, strict=True))
        losses = [
            float(curve[(curve.index + 1) * time <= end].tail(LAST).mean())
            for curve, time in zip(curves, times, strict=True)
        ]
        outcome.append({"name": name, "seconds": end / 1e3, "losses": losses})
    return outcome


def judged_curve(workdir: Workdir, cell: str, found: Evidence) -> pd.Series:
    """Mean training loss of the cell's judged runs by step, those aside that diverged."""
    curve = training_curve(workdir.cell(cell))
    if curve.empty:
        return pd.Series(dtype=float)
    runs = found.runs[(found.runs.cell == cell) & (found.runs.status == "done")]
    names = [Replica(run.learning_rate, run.init_seed, run.data_seed).name for run in runs.itertuples()]
    return curve[curve.replica.isin(names)].groupby("step").loss.mean()


def _equal_time_note(each: dict) -> str:
    single, multi = each["losses"]
    return (
        f"{each['name']}: after {each['seconds']:.1f} s of steps, when the cheaper of the two ends, the training loss "
        f"is {single:.3f} at h = 1 and {multi:.3f} at h* (the dearer one in the middle of its schedule)."
    )
