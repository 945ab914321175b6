"""The nano world: the whole method in minutes on a CPU, with queries whose oracles are known."""
