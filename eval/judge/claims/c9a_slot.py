"""C9a: which head of a layer takes a role: is that the init's doing, or the data's?"""

import functools

from eval.judge import who_decides
from eval.judge.evidence import Evidence
from eval.judge.single import by_model

ID = "C9a"
STATEMENT = "The random init, more than the order of the data, decides which head takes which role"
RULE = who_decides.RULE
applies = who_decides.applies
judge = functools.partial(
    who_decides.judge, claim=(ID, STATEMENT), label=who_decides.INDEX, decided="which head does what"
)


def look(evidence: Evidence) -> dict | None:
    return None if judge(evidence).missing else by_model.look(evidence)
