"""How figures look, and how one becomes SVG text for a file or for the page."""

import io
import re
from typing import NamedTuple

from markupsafe import Markup, escape

INK, MUTED, GRID, PAPER = "#1f2329", "#5b6470", "#dde1e6", "#ffffff"
# Okabe and Ito's hues, told apart by colour-blind readers; the second of each pair is for a dark page.
CATEGORIES = (
    ("#0072b2", "#56b4e9"),
    ("#c85200", "#ff9a4d"),
    ("#00805f", "#33c9a0"),
    ("#a8407f", "#eb97cb"),
    ("#7d6608", "#e3c341"),
    ("#50555c", "#b4bac2"),
)
MARKERS = ("o", "s", "^", "D", "v", "P")
# Steps of viridis, even in lightness, for things in an order; without the end that the page's background would swallow.
ORDERED = (
    ("#440154", "#32648e"),
    ("#482071", "#2a778e"),
    ("#433d84", "#23898e"),
    ("#39568c", "#1e9b8a"),
    ("#2e6e8e", "#27ad81"),
    ("#26828e", "#42be71"),
    ("#1f988b", "#69cd5b"),
    ("#28ad81", "#9bd93c"),
    ("#4ac16d", "#cde11d"),
    ("#7ad151", "#fde725"),
)
# Colour in an SVG file -> (CSS variable on the page, its value there in a dark scheme).
THEME = {
    INK: ("ink", "#e4e7eb"),
    MUTED: ("muted", "#9aa4b0"),
    GRID: ("grid", "#343a42"),
    PAPER: ("paper", "#16191d"),
    **{light: (f"category-{i}", dark) for i, (light, dark) in enumerate(CATEGORIES)},
    **{light: (f"ordered-{i}", dark) for i, (light, dark) in enumerate(ORDERED)},
}
RC = {
    "svg.fonttype": "none",  # text stays text: small files, readable by a screen reader, the page's own font
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.facecolor": PAPER,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "figure.facecolor": PAPER,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.minor.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.6,
}


class Drawn(NamedTuple):
    """A matplotlib Figure, what it shows in words, and text to show over its marks by gid."""

    figure: object
    alt: str
    tips: dict[str, str] = {}


def category(index: int) -> str:
    return CATEGORIES[index % len(CATEGORIES)][0]


def marker(index: int) -> str:
    return MARKERS[index % len(MARKERS)]


def ordered(index: int, count: int) -> str:
    """The colour of thing `index` of `count`, spread over the whole range."""
    return ORDERED[round(index * (len(ORDERED) - 1) / max(1, count - 1))][0]


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
    text = re.sub(r'<g id="[^".]+\.([^"]+)">', lambda found: found[0] + _title(tips.get(found[1])), text)
    text = re.sub(r"^<svg ", f'<svg role="img" aria-label="{escape(alt)}" ', text)
    return Markup(text)


def _title(tip: str | None) -> str:
    return f"<title>{escape(tip)}</title>" if tip else ""
