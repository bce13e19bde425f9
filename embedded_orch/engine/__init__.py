"""One flow call, one task call: calling, retrying, resuming, and what is recorded of it."""
