"""A mark for each verdict, so that colour is not the only sign."""

from experiments.ledger import INCONCLUSIVE, NOT_REPRODUCED, NOT_RUN, REPRODUCED

MARKS = {REPRODUCED: "✓", NOT_REPRODUCED: "✗", INCONCLUSIVE: "≈", NOT_RUN: "○"}
