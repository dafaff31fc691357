"""Speed and memory on this machine, beside other implementations."""
