"""Claims, the evidence for them, and the verdicts."""
