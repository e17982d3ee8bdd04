"""What is done in one go with some cells of a study, in this process or in a worker."""

import dataclasses
from collections.abc import Mapping

from train.grid import Cell, Replica


@dataclasses.dataclass(frozen=True)
class Job:
    """Named by what a study's jobs call it (train.study.launch.Study).

    Attributes:
      words: what else it is told.
    """

    what: str
    cells: tuple[Cell, ...]
    words: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.cells[0].name if len(self.cells) == 1 else "all cells"

    def as_json(self) -> dict:
        replicas = [(cell.name, [dataclasses.asdict(replica) for replica in cell.replicas]) for cell in self.cells]
        return {"what": self.what, "cells": replicas, "words": self.words}


def from_json(value: dict, cells: Mapping[str, Cell]) -> Job:
    """What `as_json` gave, of a study of these `cells`, by name."""
    asked = []
    for name, replicas in value["cells"]:
        asked.append(dataclasses.replace(cells[name], replicas=tuple(Replica(**replica) for replica in replicas)))
    return Job(value["what"], tuple(asked), tuple(value["words"]))
