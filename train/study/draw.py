"""A document in the terminal: its words in rows, below each row an arc for every gold link that ends there."""

from collections.abc import Iterable

from rich.console import Console
from rich.text import Text

COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "red", "bright_cyan", "bright_magenta", "bright_green")
LABEL = 14  # columns kept free for the names of links


def colour_of(relation: int) -> str:
    return COLOURS[relation % len(COLOURS)]


def document(
    console: Console,
    words: list[str],
    links: Iterable[tuple[int, int, int]],
    relations: tuple[str, ...],
    ends: set[int] = frozenset(),
) -> None:
    """Prints `words`, a row as wide as the console at most, and the links below the row of their query.

    Args:
      links: (query, key, relation), positions in `words`; those of one query and relation share a line.
      ends: positions that end a row.
    """
    arcs = {}
    for query, key, relation in sorted(links):
        arcs.setdefault((query, relation), []).append(key)
    for row in _rows(words, console.width - LABEL, ends):
        places, column = {}, 0
        for position in row:
            places[position] = column + (len(words[position]) - 1) // 2
            column += len(words[position]) + 1
        lines = [Text()]
        for position in row:
            styles = [colour_of(relation) for (query, relation), keys in arcs.items() if position in (query, *keys)]
            lines[0].append(words[position] + " ", styles[0] if styles else "dim")
        for (query, relation), keys in arcs.items():
            if query in places:
                lines.append(Text(f"{_arc(places, query, keys, words)} {relations[relation]}", colour_of(relation)))
        for line in lines:
            console.print(line, no_wrap=True, overflow="crop")


def _rows(words: list[str], width: int, ends: set[int]) -> Iterable[range]:
    begin, used = 0, 0
    for position, word in enumerate(words):
        if position > begin and (used + len(word) > width or position - 1 in ends):
            yield range(begin, position)
            begin, used = position, 0
        used += len(word) + 1
    if begin < len(words):
        yield range(begin, len(words))


def _arc(places: dict[int, int], query: int, keys: list[int], words: list[str]) -> str:
    """A line from the keys, └ or ┴, to the query, ┘ (▲ where a key stands behind it); keys in other rows are named, and
    for those above the line begins at the margin."""
    here = sorted({places[key] for key in keys if key in places} | {places[query]})
    away = {side: [words[key] for key in keys if key not in places and (key < query) == (side == "above")]
            for side in ("above", "below")}  # fmt: skip
    begin = 0 if away["above"] else here[0]
    line = list(" " * begin + "─" * (here[-1] + 1 - begin))
    for place in here:
        line[place] = "┴"
    if not away["above"]:
        line[here[0]] = "└"
    line[here[-1]] = "┘"
    line[places[query]] = "┘" if places[query] == here[-1] else "▲"
    return "".join(line) + "".join(f" ({', '.join(names)} {side})" for side, names in away.items() if names)
