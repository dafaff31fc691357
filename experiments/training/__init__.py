"""One run from start to end: building, training, evaluation and checkpoints."""
