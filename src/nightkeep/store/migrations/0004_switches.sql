-- Switches: what a person, or a rule, has stopped. Nothing that a row names is served while the row stands.
-- family: who may hold a stop of one target beside others: person, signal or rule. The STOP file has no row; it is its
-- own record. Times are milliseconds since 1970.

CREATE TABLE switches (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    family TEXT NOT NULL,
    why TEXT NOT NULL,
    by_whom TEXT NOT NULL,
    since BIGINT NOT NULL,
    drain SMALLINT NOT NULL,
    source TEXT NOT NULL,
    UNIQUE (kind, name, family)
);

-- Every use of a switch; never changed. Its highest number is the version that other processes look for.
CREATE TABLE switch_log (
    n BIGINT PRIMARY KEY,
    at BIGINT NOT NULL,
    verb TEXT NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    by_whom TEXT NOT NULL,
    why TEXT NOT NULL,
    source TEXT NOT NULL,
    stop_id TEXT NOT NULL
);
