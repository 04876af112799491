-- Budgets: what is used of each in each window, and which process holds how much of it.
-- Amounts are micro-dollars, tokens or requests. window_start is in seconds since 1970; 0 where there is only one.
-- "used" is what is settled plus what every lease holds, so a process may take no more than the limit less "used".

CREATE TABLE budget_windows (
    scope TEXT NOT NULL,
    metric TEXT NOT NULL,
    period TEXT NOT NULL,
    window_start BIGINT NOT NULL,
    used BIGINT NOT NULL,
    told INTEGER NOT NULL DEFAULT 0,
    wanted_at BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (scope, metric, period, window_start)
);
CREATE INDEX budget_windows_wanted ON budget_windows (wanted_at) WHERE wanted_at > 0;

-- What one process has taken: "amount" of it is counted in "used"; "spent" of that is settled for certain.
-- A process that died has lost it: it is settled by the provider's report of the time up to lost_at (milliseconds).
CREATE TABLE budget_leases (
    owner TEXT NOT NULL,
    scope TEXT NOT NULL,
    metric TEXT NOT NULL,
    period TEXT NOT NULL,
    window_start BIGINT NOT NULL,
    class TEXT NOT NULL,
    amount BIGINT NOT NULL,
    spent BIGINT NOT NULL,
    is_lost SMALLINT NOT NULL DEFAULT 0,
    lost_at BIGINT,
    PRIMARY KEY (scope, metric, period, window_start, owner, class)
);
CREATE INDEX budget_leases_owner ON budget_leases (owner);

-- How many tokens a model makes of a byte, as its own reports have shown (models.calibration).
CREATE TABLE calibrations (
    model TEXT PRIMARY KEY,
    body TEXT NOT NULL,
    updated_at BIGINT NOT NULL
);
