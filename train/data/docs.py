"""The `docs` corpus: English of the installed numerical stack, one document for each source module.

Docstrings are read out of the packages' source files: nothing is imported or run. What is left of a docstring is its
sentences: code, doctests, tables, formulas, headings and fragments are dropped, and a paragraph
that stands in several places is kept in the first alone, so no sentence of one split is repeated in another.
"""

import hashlib
import importlib.util
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

PACKAGES = ("absl", "flax", "grain", "jax", "matplotlib", "ml_collections", "numpy", "optax", "orbax", "pandas")
PACKAGES += ("scipy", "statsmodels")
# A document ends after the paragraph that takes it past this length: long modules would otherwise be half of a split.
DOCUMENT_BYTES = 10_000
SHORTEST_DOCUMENT_BYTES = 300
SHORTEST_PARAGRAPH_WORDS = 6
# Prose has about 0.95 of letters, spaces and commas; formulas, signatures and tables have less than this.
LEAST_PROSE_SHARE = 0.86

_NOT_SOURCE = re.compile(r"(^|[/_])(tests?|testing|conftest|setup|vendored?)([/_.]|$)")
# Comments and other strings are matched only to be passed over, so that quotes inside them do not count.
_LEXER = re.compile(
    r"""\#[^\n]*
    | (?P<margin>^[ \t]*)? [rRuU]? (?:
        \"{3} (?P<double> (?: [^"\\] | \\. | "(?!"") )* ) \"{3}
      | '{3} (?P<single> (?: [^'\\] | \\. | '(?!'') )* ) '{3} )
    | "(?: [^"\\\n] | \\. )*"
    | '(?: [^'\\\n] | \\. )*'""",
    re.MULTILINE | re.DOTALL | re.VERBOSE,
)
_CODE = re.compile(r"^(>>>|\.\.\.|\.\. |:\w+|@|\$ |In \[|Out\[|[|+]|\[\w+\]|[-=~^*+_#. ]+$)")
_UNDERLINE = re.compile(r"^[-=~^*+]{3,}$")
_PARAMETER = re.compile(r"^\S.* : ")  # numpydoc: 'axis : int, optional'
_ARGUMENT = re.compile(r"^\*{0,2}\w+( \([^)]*\))?: ")  # Google style: 'axis: the axis to sum over.'
_ROLE = re.compile(r":[\w:]+:`~?([^`]*)`")
_SYMBOL = re.compile(r"[^\w ,\n]|[\d_]")
_FOOTNOTE = re.compile(r" ?\[\w+\]_")


def records() -> Iterator[tuple[str, bytes]]:
    """(module name, UTF-8 text) of every module with enough prose, in hash order of the names: a fair sample.

    Topics of the language reference (`pydoc_data.topics`) stand among them as `python.<topic>`.
    """
    from pydoc_data import topics

    sources, seen = {f"python.{name}": text for name, text in topics.topics.items()} | _modules(), set()
    for name in sorted(sources, key=lambda name: hashlib.sha256(name.encode()).digest()):
        document = _document(sources[name], seen)
        if len(document) >= SHORTEST_DOCUMENT_BYTES:
            yield name, document


def _modules() -> dict[str, Path]:
    """Module name -> source file, for the packages that are installed; test modules are left out."""
    modules = {}
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        for folder in map(Path, spec.submodule_search_locations or () if spec else ()):
            for path in folder.rglob("*.py"):
                relative = path.relative_to(folder.parent)
                if not _NOT_SOURCE.search(relative.as_posix()):
                    modules[".".join(relative.with_suffix("").parts).removesuffix(".__init__")] = path
    return modules


def _document(source: str | Path, seen: set[str]) -> bytes:
    """The new paragraphs of a topic's text or a module's docstrings, up to DOCUMENT_BYTES; adds them to `seen`."""
    parts, size = [], 0
    for docstring in [source] if isinstance(source, str) else _docstrings(source):
        if size >= DOCUMENT_BYTES:
            break
        parts.append([])
        for paragraph in _paragraphs(docstring):
            if paragraph not in seen and size < DOCUMENT_BYTES:
                seen.add(paragraph)
                parts[-1].append(paragraph)
                size += len(paragraph.encode()) + 1
    return "\n\n".join("\n".join(part) for part in parts if part).encode()


def _docstrings(path: Path) -> Iterator[str]:
    """The triple-quoted strings that begin a line, in the order of the source.

    They are the docstrings, and those that NumPy hands to C code by add_newdoc. A lexer finds the same ones as `ast`
    (99.8 % of the bytes of the packages above) in a fifth of the time, and stops when the document is full.
    """
    for token in _LEXER.finditer(path.read_text(encoding="utf-8", errors="ignore")):
        if token["margin"] is not None:
            yield token["double"] or token["single"] or ""


def _paragraphs(text: str) -> Iterator[str]:
    """The paragraphs of a docstring that read as English, line ends kept."""
    for lines in _blocks(inspect.cleandoc(text)):
        prose = "\n".join(line for line in lines if not _PARAMETER.match(line))
        if any(_CODE.match(line) for line in lines) or ":math:" in prose or "\\" in prose:
            continue
        if len(prose.split()) < SHORTEST_PARAGRAPH_WORDS or prose[-1] not in ".:;!?)":
            continue
        if prose[0].islower() and not _ARGUMENT.match(prose):  # what is left of a sentence round a formula
            continue
        prose = _FOOTNOTE.sub("", _ROLE.sub(r"`\1`", prose))
        if len(_SYMBOL.findall(prose)) <= (1 - LEAST_PROSE_SHARE) * len(prose):
            yield prose


def _blocks(text: str) -> Iterator[list[str]]:
    """Runs of lines between blank lines, and between changes of indentation where it is not a hanging indent."""
    block, indent = [], 0
    for line in text.split("\n"):
        stripped, depth = line.strip(), len(line) - len(line.lstrip())
        hanging = depth > indent and bool(block) and len(block[-1].split()) > 4
        hanging = hanging and block[-1][-1] not in ".:" and not _PARAMETER.match(block[-1])
        if block and (not stripped or (depth != indent and not hanging)):
            yield block
            block = []
        if len(block) == 1 and _UNDERLINE.match(stripped):
            block = []  # the heading goes, and the text below it starts afresh
        elif stripped:
            block.append(stripped)
            indent = depth
    if block:
        yield block
