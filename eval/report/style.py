"""How figures look, and how one becomes SVG text for a file or for the page."""

import io
import re
from typing import NamedTuple

from markupsafe import Markup, escape

INK, MUTED, GRID, PAPER = "#1f2329", "#5b6470", "#dde1e6", "#ffffff"
# Okabe and Ito's hues, told apart by colour-blind readers; the second row is for a dark page.
CATEGORIES = (
    ("#0072b2", "#c85200", "#00805f", "#a8407f", "#7d6608", "#50555c"),
    ("#56b4e9", "#ff9a4d", "#33c9a0", "#eb97cb", "#e3c341", "#b4bac2"),
)
MARKERS = ("o", "s", "^", "D", "v", "P")
# Steps of viridis, even in lightness, for things in an order; without the end that the page's background would swallow.
ORDERED = (
    ("#440154", "#482071", "#433d84", "#39568c", "#2e6e8e", "#26828e", "#1f988b", "#28ad81", "#4ac16d", "#7ad151"),
    ("#32648e", "#2a778e", "#23898e", "#1e9b8a", "#27ad81", "#42be71", "#69cd5b", "#9bd93c", "#cde11d", "#fde725"),
)
# Colour in an SVG file -> (CSS variable on the page, its value there in a dark scheme).
THEME = {
    INK: ("ink", "#e4e7eb"),
    MUTED: ("muted", "#9aa4b0"),
    GRID: ("grid", "#343a42"),
    PAPER: ("paper", "#16191d"),
    **{light: (f"category-{i}", dark) for i, (light, dark) in enumerate(zip(*CATEGORIES, strict=True))},
    **{light: (f"ordered-{i}", dark) for i, (light, dark) in enumerate(zip(*ORDERED, strict=True))},
}
RC = {
    "svg.fonttype": "none",  # text stays text: small files, readable by a screen reader, the page's own font
    "font.family": "sans-serif",
    "font.size": 10,
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor"), INK),
    **dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color"), MUTED),
    **dict.fromkeys(("axes.facecolor", "figure.facecolor"), PAPER),
    **dict.fromkeys(("axes.grid", "axes.axisbelow"), True),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon"), False),
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.minor.size": 0,
    "legend.fontsize": 9,
    "lines.linewidth": 1.6,
}


class Drawn(NamedTuple):
    """A matplotlib Figure, what it shows in words, and text to show over its marks by gid."""

    figure: object
    alt: str
    tips: dict[str, str] = {}


def category(index: int) -> str:
    return CATEGORIES[0][index % len(CATEGORIES[0])]


def marker(index: int) -> str:
    return MARKERS[index % len(MARKERS)]


def ordered(index: int, count: int) -> str:
    """The colour of thing `index` of `count`, spread over the whole range."""
    return ORDERED[0][round(index * (len(ORDERED[0]) - 1) / max(1, count - 1))]


def axes(title: str, xlabel: str, ylabel: str, size: tuple[float, float]):
    """The one panel of a figure."""
    from matplotlib.figure import Figure

    return Figure(figsize=size, layout="constrained").add_subplot(title=title, xlabel=xlabel, ylabel=ylabel)


def ticks(axis, at) -> None:
    """Ticks at these values alone."""
    axis.set_ticks(at, [f"{value:g}" for value in at])
    axis.set_ticks([], minor=True)


def svg(figure, name: str) -> str:
    """The figure as an SVG document; the same figure gives the same text. Ids start with `name`, so that many figures
    can stand on one page."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    with matplotlib.rc_context({**RC, "svg.hashsalt": name}):
        file = io.StringIO()
        # Not figure.savefig, which draws everything twice.
        FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None, "Creator": None})
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", file.getvalue(), flags=re.DOTALL)
    text = re.sub(r'id="([^"]+)"', rf'id="{name}.\1"', text)
    return re.sub(r'(url\(|href=")#', rf"\1#{name}.", text)


def inline(text: str, alt: str, tips: dict[str, str]) -> Markup:
    """An SVG document as an element of the page, in the page's colours.

    Args:
      alt: what the figure shows, in words.
      tips: text to show over the marks with these gids.
    """
    text = text[text.index("<svg") :]
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text)
    for light, (name, _) in THEME.items():
        text = text.replace(light, f"var(--{name})")
    titles = {mark: f"<title>{escape(tip)}</title>" for mark, tip in tips.items()}
    text = re.sub(r'<g id="[^".]+\.([^"]+)">', lambda found: found[0] + titles.get(found[1], ""), text)
    return Markup(re.sub(r"^<svg ", f'<svg role="img" aria-label="{escape(alt)}" ', text))
