"""The vocabulary: plain values and pure functions on them. Standard library and msgspec only."""
