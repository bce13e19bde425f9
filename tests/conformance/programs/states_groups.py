"""A group of states is counted as a whole."""

from embedded_orch.states import Completed, Failed, StateGroup

group = StateGroup([Completed(), Failed(), Completed()])
assert group.fail_count == 1
assert group.any_failed() and not group.all_completed() and group.all_final()
