"""Nightkeep keeps AI agents running through the night. This file holds the version and imports nothing."""

__all__ = ["__version__"]

__version__ = "0.1.0"
