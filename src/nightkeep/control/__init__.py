"""Controls: what stands in front of an action and decides whether it may go on."""
