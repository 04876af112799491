"""Drills: rehearsed incidents. Real processes, injected faults, and assertions with what was seen."""
