"""The page: report/index.html, one file that needs nothing beside it, and its figures in report/figures/.

A section is a file NAME.py in eval/report/sections beside its template NAME.html.j2. It has context(evidence,
verdicts), what the template has beside these two, or None where there is nothing to show; and may have
figures(evidence, verdicts), a style.Drawn by the name of its file, which the template has as `figures`, and TABLES, the
names of the results/*.parquet that it shows. The first section with something to show opens the page with its TITLE.
"""

import math
import pathlib
from collections.abc import Iterable

import jinja2
from markupsafe import Markup

from eval import walk
from eval.judge.evidence import Evidence
from eval.judge.verdict import Verdict
from eval.report import sections, style
from train import files

HERE = pathlib.Path(__file__).parent
ORDER = [
    "grid.opening",
    "doses.opening",
    "study.verdicts",
    "study.standing",
    "grid.losses",
    "heads.roles",
    "heads.composition",
    "heads.stability",
    "heads.emergence",
    "heads.ablation",
    "heads.importance",
    "heads.pruning",
    "measured.relations",
    "grid.rates",
    "grid.training",
    "grid.cost",
    "doses.runs",
    "*",  # every other section, by name
    "measured.measurements",
    "study.outcome",
    "study.making",
]


def write(evidence: Evidence, verdicts: list[Verdict]) -> pathlib.Path | None:
    """Writes the page and returns its path, None for a study of doses without any run; the same results give the same
    bytes."""
    if evidence.config.dose.relations and evidence.doses.empty:
        return None
    import matplotlib  # takes most of a second

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    environment.filters.update(number=number, counted=counted, layers=layers, listed=listed, gallery=gallery)
    title, shown, drawn = "", [], {}
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **style.RC}):
        for section in found():
            context = section.context(evidence, verdicts)
            if context is not None:
                figures = section.figures(evidence, verdicts) if hasattr(section, "figures") else {}
                texts = {name: style.svg(one.figure, name) for name, one in figures.items()}
                inline = {name: style.inline(texts[name], one.alt, one.tips) for name, one in figures.items()}
                drawn |= {f"{name}.svg": text for name, text in texts.items()}
                template = environment.from_string(pathlib.Path(section.__file__).with_suffix(".html.j2").read_text())
                title = title or section.TITLE
                shown.append(Markup(template.render(context, evidence=evidence, verdicts=verdicts, figures=inline)))
    base = environment.get_template("base.html.j2")
    html = base.render(title=title, opening=shown[0], sections=shown[1:], theme=style.THEME)
    folder = evidence.workdir.report / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in drawn.items():
        files.write_text(folder / name, text)
    for stale in [path for path in folder.glob("*.svg") if path.name not in drawn]:
        stale.unlink()
    files.write_text(evidence.workdir.report / "index.html", html)
    return evidence.workdir.report / "index.html"


def found() -> list:
    """The sections in the order of the page."""
    by_name = {each.__name__.removeprefix(f"{sections.__name__}."): each for each in walk.modules(sections)}
    place = lambda name: ORDER.index(name if name in ORDER else "*")  # noqa: E731
    return [by_name[name] for name in sorted(by_name, key=lambda name: (place(name), name))]


def number(value: float | None, spec: str = ",.0f") -> str:
    """`value` in the format `spec`, a dash where there is none."""
    return "–" if value is None or not math.isfinite(value) else format(value, spec).replace("-", "−")


def counted(count: int, word: str) -> str:
    """'1 cell', '2 cells'."""
    return f"{number(count)} {word}{'' if count == 1 else 's'}"


def layers(widths: str) -> str:
    """'353 353' as '2 × 353'; widths that differ are listed."""
    each = widths.split()
    return f"{len(each)} × {each[0]}" if len(set(each)) == 1 else ", ".join(each)


def listed(lines: Iterable[str]) -> Markup:
    """A list of sentences; nothing where there are none."""
    items = Markup("\n").join(Markup("<li>{}</li>").format(line) for line in lines)
    return Markup('<ul class="notes">{}</ul>').format(items) if items else items


def gallery(figures: dict[str, Markup], prefix: str = "", columns: str = "") -> Markup:
    """The figures whose names start with `prefix`, side by side; nothing where there are none."""
    shown = [Markup("<div>{}</div>").format(svg) for name, svg in figures.items() if name.startswith(prefix)]
    each = Markup("\n").join(shown)
    return Markup('<div class="figures {}">\n{}\n</div>').format(columns, each) if each else each
