"""The page: report/index.html, one file that needs nothing beside it, and its figures in report/figures/."""

import math
import pathlib

import jinja2
import pandas as pd

from eval import tables
from eval.judge import claims
from eval.report import facts, figures, outcome, style, verdicts
from train import files
from train.config import freeze
from train.workdir import Workdir

HERE = pathlib.Path(__file__).parent
FOREST = {"C1": "test loss at h = 1 less that at h*", "C2": "test loss at d_k = 1 less that at h*"}
AXES = {"num_heads": "the number of heads h", "d_k": "the head width d_k"}

CURVES = {"tokens": "training tokens", "seconds": "measured time (s)", "flops": "training FLOPs"}
COSTS = (  # column, what to divide it by, title, axis
    ("step_ms", 1, "Time of a step", "step of one run (ms)"),
    ("peak_memory_bytes", 2**20, "Memory", "a cell's program (MiB)"),
)


def write(workdir: Workdir, table: pd.DataFrame) -> pathlib.Path:
    """Writes the page and returns its path; the same results give the same bytes.

    Args:
      table: the cells table (eval.tables.write_tables), of some cells or all; results/replicas.parquet has their runs.
    """
    found = facts.load(workdir, table)
    drawn = _draw(found) if len(table) else {}
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    environment.filters.update(number=number, layers=layers)
    html = environment.get_template("template.html.j2").render(
        facts=found,
        cells=found.cells.to_dict("records"),
        config=found.record["config"],
        theme=style.THEME,
        figures={name: style.inline(*parts) for name, parts in drawn.items()},
        has_curves=any(name.startswith("curves_") for name in drawn),
        verdicts=verdicts.rows(found),
        reading=verdicts.reading(found),
        prospect=claims.prospect(freeze(found.record["config"])),
        prices=_prices(workdir) if len(table) else [],
        rate_costs=facts.rate_costs(found) if len(table) else [],
        relations=tables.excess(workdir, table).T,
        may_be_best=facts.may_be_best(found) if len(table) else {},
        budget_notes=facts.budget_notes(found.cells) if len(table) else [],
        rate_notes=facts.rate_notes(found) if len(table) else [],
        single_ms=_single_ms(found.cells),
        states=outcome.states(found),
        diverged=outcome.diverged(found),
        splits=outcome.splits(found),
        settings=outcome.settings(found),
        command=outcome.command(found.record),
    )
    folder = workdir.report / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    for name, (text, _, _) in drawn.items():
        files.write_text(folder / f"{name}.svg", text)
    for stale in set(folder.glob("*.svg")) - {folder / f"{name}.svg" for name in drawn}:
        stale.unlink()
    files.write_text(workdir.report / "index.html", html)
    return workdir.report / "index.html"


def number(value: float | None, spec: str = ",.0f") -> str:
    """`value` in the format `spec`, a dash where there is none."""
    return "–" if value is None or not math.isfinite(value) else format(value, spec).replace("-", "−")


def layers(widths: str) -> str:
    """'353 353' as '2 × 353'; widths that differ are listed."""
    each = widths.split()
    return f"{len(each)} × {each[0]}" if len(set(each)) == 1 else ", ".join(each)


def _single_ms(cells: pd.DataFrame) -> dict[tuple[int, str, int], float]:
    """Step time of h = 1 by (d_model, series, num_layers)."""
    if cells.empty:
        return {}
    single = cells[cells.num_heads == 1]
    return {(row.d_model, row.series, row.num_layers): row.step_ms for row in single.itertuples()}


def _prices(workdir: Workdir) -> list[dict]:
    """Median over the launches of step time and memory, by cell and path."""
    path = workdir.results / "prices.csv"
    if not path.exists():
        return []
    keys = ["cell", "path", "attention"]
    timed = pd.read_csv(path).groupby(keys, as_index=False, sort=False)[["step_ms", "memory_bytes"]].median()
    return timed.to_dict("records")


def _draw(found: facts.Facts) -> dict[str, tuple[str, str, dict[str, str]]]:
    """Every figure by the name of its file: SVG document, what it shows in words, tips by gid."""
    import matplotlib

    seeds, curves, rates = found.seeds, found.curves(), _rates(found)
    bounds = figures.limits(seeds)
    varied = {axis: words for axis, words in AXES.items() if seeds[axis].nunique() > 1} or {
        "num_heads": AXES["num_heads"]
    }
    tips = {
        figures.gid(row.cell, row.init_seed, row.data_seed): f"{row.cell}, seed {row.init_seed}: {row.counted:.4f}"
        + (f" (diverged at step {row.diverged_at})" if row.status == "diverged" else "")
        for row in seeds.itertuples()
    }
    made = {}
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **style.RC}):
        for verdict in found.verdicts:
            rows = verdicts.forest(verdict)
            if rows:
                alt = f"{verdict['claim']}: effects and intervals."
                made[f"forest_{verdict['id']}"] = (
                    figures.forest(rows, verdict["margin"], f"{verdict['id']}: {FOREST[verdict['id']]}"),
                    alt,
                    {},
                )
        if len(found.pairs):
            pair_tips = {
                figures.gid(row.cell, row.init_seed, row.data_seed): f"{row.cell}, seed {row.init_seed}: "
                f"{row.difference:+.4f}"
                for row in found.pairs.itertuples()
            }
            for axis, words in varied.items():
                alt = f"Paired difference in test loss to one head, for every seed and d_model, against {words}."
                made[f"difference_{axis}"] = (figures.difference(found.pairs, axis), alt, pair_tips)
        for column, unit, title, label in COSTS:
            values = pd.to_numeric(found.cells[column]).dropna() / unit
            if len(values):
                figure = figures.cost(found.cells.loc[values.index], next(iter(varied)), values, title, label)
                made[f"cost_{column}"] = (figure, f"{title}: {label} against {next(iter(varied.values()))}.", {})
        for index, (d_model, of_width) in enumerate(seeds.groupby("d_model")):
            name = f"d{d_model:03d}"
            for axis, words in varied.items():
                figure = figures.loss(of_width, axis, bounds[d_model], found.bigram, index)
                alt = f"Test loss of every seed at the tuned learning rate against {words}, d_model {d_model}."
                made[f"loss_{axis}_{name}"] = (figure, alt, tips)
            alt = f"Mean tune loss against the learning rate, one line for each cell of d_model {d_model}."
            made[f"rates_{name}"] = (figures.sensitivity(rates[rates.d_model == d_model]), alt, {})
            mine = curves[curves.d_model == d_model] if len(curves) else curves
            for axis, label in CURVES.items():
                if len(mine) and mine[axis].notna().all():
                    alt = f"Training loss against {label}, one line for each cell of d_model {d_model}."
                    made[f"curves_{name}_{axis}"] = (figures.curves(mine, axis, label), alt, {})
        return {name: (style.svg(figure, name), alt, tips) for name, (figure, alt, tips) in made.items()}


def _rates(found: facts.Facts) -> pd.DataFrame:
    """Mean tune loss by cell and learning rate, a diverged run counted as the unigram entropy."""
    tune = found.evidence.choosing
    keys = ["cell", *facts.SHAPE, "series", "depth", "learning_rate"]
    tune = tune.assign(diverged=tune.status == "diverged")
    means = tune.groupby(keys, as_index=False).agg(loss=("counted", "mean"), diverged=("diverged", "sum"))
    chosen = found.cells[["cell", "learning_rate"]].rename(columns={"learning_rate": "best"})
    means = means.merge(chosen, on="cell")
    return means.assign(chosen=means.learning_rate == means.best)
