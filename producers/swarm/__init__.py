"""The swarm daemon: a loop of decisions that acts on a directory, within a governor's rules."""
