"""Public test doubles and contract suites: for our tests, and for those who build on Nightkeep."""
