-- What people were told, or should have been: one row an episode, counted while it lasts (nightkeep.ops.alerts).
-- Times are milliseconds since 1970. ``state`` is open, acked or resolved; ``deliveries`` a JSON object from the
-- channel's name to waiting, sent, held or "failed: why".

CREATE TABLE alerts (
    id TEXT PRIMARY KEY,
    alert_key TEXT NOT NULL,
    kind TEXT NOT NULL,
    level TEXT NOT NULL,
    about TEXT NOT NULL,
    scope TEXT,
    message TEXT NOT NULL,
    state TEXT NOT NULL,
    first_at BIGINT NOT NULL,
    last_at BIGINT NOT NULL,
    occurrences BIGINT NOT NULL,
    resets_at BIGINT,
    lasts_s DOUBLE PRECISION,
    ends_at BIGINT,
    acked_at BIGINT,
    acked_by TEXT,
    acked_why TEXT,
    resolved_at BIGINT,
    deliveries TEXT NOT NULL
);
CREATE INDEX alerts_state ON alerts (state, last_at);

-- What other processes of this database ask of the one that tells people (nightkeep.ops.alert_posts); JSON in body.
CREATE TABLE alert_posts (
    id TEXT PRIMARY KEY,
    at BIGINT NOT NULL,
    body TEXT NOT NULL
);
