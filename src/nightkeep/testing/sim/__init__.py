"""The simulated provider: all four wires over real HTTP, scripted turns, keys with limits, and faults.

``start_sim`` runs one inside a process, ``nightkeep sim`` as a command; ``load_scenario`` reads a file.
Every answer is labelled as simulated. Reference: ``docs/simulated-provider.md``.
"""

from __future__ import annotations

from nightkeep.testing.sim.faults import FAULTS
from nightkeep.testing.sim.loading import load_scenario, parse_scenario
from nightkeep.testing.sim.scenario import (
    Account,
    Delivery,
    FaultRule,
    Limits,
    Match,
    Model,
    Price,
    ProviderSection,
    Quota,
    Reply,
    Scenario,
    ScriptedCall,
    ScriptedUsage,
    Turn,
)
from nightkeep.testing.sim.server import RunningSim, start_sim
from nightkeep.testing.sim.threaded import running_sim

__all__ = [
    "FAULTS",
    "Account",
    "Delivery",
    "FaultRule",
    "Limits",
    "Match",
    "Model",
    "Price",
    "ProviderSection",
    "Quota",
    "Reply",
    "RunningSim",
    "Scenario",
    "ScriptedCall",
    "ScriptedUsage",
    "Turn",
    "load_scenario",
    "parse_scenario",
    "running_sim",
    "start_sim",
]
