"""A mark for each verdict, so that colour is not the only sign, and the verdict that each outcome speaks for."""

from experiments.ledger.effects import AS_CLAIMED, NEGATIVE, NOT_RUN, UNDECIDED
from experiments.ledger.verdicts import INCONCLUSIVE, NOT_REPRODUCED, REPRODUCED

MARKS = {REPRODUCED: "✓", NOT_REPRODUCED: "✗", INCONCLUSIVE: "≈", NOT_RUN: "○"}
VERDICT_OF = {
    **{verdict: verdict for verdict in MARKS},
    **dict.fromkeys(NEGATIVE, NOT_REPRODUCED),
    AS_CLAIMED: REPRODUCED,
    UNDECIDED: INCONCLUSIVE,
}
