"""The ledger: claims, the evidence for them, and verdicts."""
