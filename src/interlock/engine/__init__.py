"""The one door: submit, policy, approvals, runner, queue, audit."""
