"""The rules of runs, pure: a run, a proposed state and facts in, a decision out."""
