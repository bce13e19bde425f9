"""One function for each thing that happens, each within one transaction.

The functions take a transaction first and values after it. They may run twice (a group of writes
that was rolled back, a commit whose outcome was unknown), so those that write are given the ids of
what they write, and give the same answer when they find it written.
"""
