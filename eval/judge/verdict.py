"""A verdict's form."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Shown:
    """What the page shows of a verdict beside its words; all of it may be empty.

    Attributes:
      number, unit: the effect with its interval, and what they are in.
      more: what was computed beside the sentence, in words.
      rows: of a forest plot, the deciding one first: label, effect, low, high, and `seeds` of the first.
      title: of that plot.
    """

    number: str = ""
    unit: str = ""
    more: tuple[str, ...] = ()
    rows: tuple[dict, ...] = ()
    title: str = ""


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A claim as decided; losses in nats/token, None where there is no number.

    Attributes:
      id, claim: the claim's ID and STATEMENT.
      verdict: `supported`, `refuted` or `undecided`.
      sentence: the outcome in words, naming the corpus.
      rule: what decides.
      effect, low, high: the deciding difference and its interval at `confidence`.
      n, files: fresh seeds, and effective number of source files.
      about: `new documents` or `these documents`.
      exploratory: seeds were added after a verdict had been read more often than claims.looks allows.
      missing: what keeps the claim from being judged at all.
      parts: of each d_model: name, the two cells, effect, low, high, verdict.
      notes: what a reader must know beside the sentence.
      details: everything else that was computed, by name.
      shown: on the page; no part of results/claims.json.
    """

    id: str
    claim: str
    verdict: str
    sentence: str
    rule: str
    margin: float
    confidence: float
    effect: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    files: float | None = None
    about: str = ""
    exploratory: bool = False
    missing: tuple[str, ...] = ()
    parts: tuple[dict, ...] = ()
    notes: tuple[str, ...] = ()
    details: dict = dataclasses.field(default_factory=dict)
    shown: Shown = Shown()

    def record(self) -> dict:
        """As results/claims.json has it."""
        fields = dataclasses.asdict(self)
        del fields["shown"]
        return fields
