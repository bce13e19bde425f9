"""Concurrency and rate limits: ``.sync`` and ``.asyncio`` to take slots, as in Prefect."""
