"""Other tools on the same workloads."""
