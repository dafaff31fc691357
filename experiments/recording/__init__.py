"""The run folder, and what identifies a run."""
