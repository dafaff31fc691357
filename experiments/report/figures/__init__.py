"""Charts and tables of each experiment, built from finished runs."""
