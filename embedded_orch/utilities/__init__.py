"""Modules that Prefect's users import by these paths; what is in them lives elsewhere."""
