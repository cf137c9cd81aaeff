"""Git repositories: commits and pushes, as the work tree stands and as somebody saw it."""
