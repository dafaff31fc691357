"""Many runs: the grid of an experiment's jobs, Hydra's sweepers, and who works them off."""
