"""Every drill, in the order in which ``all`` runs them. The identifiers are those of the mission's documents."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from nightkeep.ops.drills import money_stories, stories, watch_stories
from nightkeep.ops.drills.stage import Stage

__all__ = ["DRILLS", "Drill"]


class Drill(NamedTuple):
    """A drill in the table."""

    play: Callable[[Stage], Awaitable[None]]
    sources: str

    @property
    def story(self) -> str:
        """What happens, in a sentence."""
        return " ".join((self.play.__doc__ or "").split())


DRILLS: Final[dict[str, Drill]] = {
    "fifteen-accounts": Drill(stories.fifteen_accounts, "W1.2, W3.2, Q-PROXY-01, Q-PROXY-04"),
    "batch-beside-monitoring": Drill(stories.batch_beside_monitoring, "W1.2, Q-PROXY-03"),
    "model-mismatch": Drill(stories.model_mismatch, "S10.14"),
    "reasoning-parameter": Drill(stories.reasoning_parameter, "W3.3, Q-PROXY-07"),
    "broken-config": Drill(stories.broken_config, "W6.1, Q-PROXY-12"),
    "key-with-a-typo": Drill(stories.key_with_a_typo, "W6.2, Q-PROXY-13"),
    "provider-outage": Drill(stories.provider_outage, "W5.1, Q-PROXY-11"),
    "storm-of-429": Drill(stories.storm_of_429, "F33, F37"),
    "suspension": Drill(stories.suspension, "W1.2, Q-PROXY-05"),
    "hang": Drill(stories.hang, "F36"),
    "cut-stream": Drill(stories.cut_stream, "design.md §6"),
    "client-hangs-up": Drill(stories.client_hangs_up, "peers: litellm#14457"),
    "forty-eight-hour-loop": Drill(money_stories.forty_eight_hour_loop, "W1.1, W8.1, Q-COST-01, Q-COST-08"),
    "budget-race": Drill(money_stories.budget_race, "Q-COST-11, A11-R1"),
    "wrong-estimate": Drill(money_stories.wrong_estimate, "W1.2, Q-COST-05, Q-COST-08"),
    "fifteen-accounts-money": Drill(money_stories.fifteen_accounts_money, "W3.2, W8.3"),
    "missing-price": Drill(money_stories.missing_price, "Q-COST-10, D34"),
    "clock-edge": Drill(money_stories.clock_edge, "S8.4, D34"),
    "stop-everything": Drill(watch_stories.stop_everything, "G10.4, A9"),
    "reconcile-after-kill": Drill(money_stories.reconcile_after_kill, "law 1, design.md §5"),
    "orphan-session": Drill(watch_stories.orphan_session, "W8.4, Q-SESS-05"),
    "heartbeat": Drill(watch_stories.heartbeat, "W2.1, W5.2, Q-COST-04"),
    "alert-storm": Drill(watch_stories.alert_storm, "Q-PROXY-04, Q-MON-02"),
}
