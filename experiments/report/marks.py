"""How verdicts are marked, so that they are not told by colour alone."""

from experiments.ledger.verdicts import INCONCLUSIVE, NOT_REPRODUCED, NOT_RUN, REPRODUCED

MARKS = {REPRODUCED: "✓", NOT_REPRODUCED: "✗", INCONCLUSIVE: "≈", NOT_RUN: "○"}
WORDS = {REPRODUCED: 110, NOT_REPRODUCED: 140, INCONCLUSIVE: 118, NOT_RUN: 84}  # widths in a picture, in pixels
