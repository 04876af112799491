"""The wires: one sans-I/O codec per vendor protocol."""
