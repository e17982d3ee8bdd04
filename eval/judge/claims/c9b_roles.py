"""C9b: which roles the heads of a layer take between them: is that the init's doing, or the data's?"""

import functools

from eval.judge import who_decides
from eval.judge.evidence import Evidence
from eval.judge.single import by_model

ID = "C9b"
STATEMENT = "The random init, more than the order of the data, decides which roles there are"
RULE = who_decides.RULE
applies = who_decides.applies
judge = functools.partial(
    who_decides.judge, claim=(ID, STATEMENT), label=who_decides.MATCHED, decided="what the heads do between them"
)


def look(evidence: Evidence) -> dict | None:
    return None if judge(evidence).missing else by_model.look(evidence)
