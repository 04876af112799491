"""The command line: a noun, then a verb. Doors only: parse, call one function, print."""
