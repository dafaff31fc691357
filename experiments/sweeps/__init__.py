"""Many runs: the jobs of an experiment, Hydra sweepers, and executors."""
