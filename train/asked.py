"""What a command line asks of a study, beside its config."""

import dataclasses

from train.hosts.slots import Launcher


@dataclasses.dataclass(frozen=True)
class Asked:
    """Of a workdir.

    Attributes:
      names: cells to train or measure; empty for all. Tables and page always hold every measured cell.
      arms: workdirs of studies beside this one, which the verdicts cite.
      measure: measurements; empty for those of every study.
      launcher: where cells train and are measured.
    """

    mode: str
    names: tuple[str, ...]
    arms: tuple[str, ...]
    measure: tuple[str, ...]
    launcher: Launcher
