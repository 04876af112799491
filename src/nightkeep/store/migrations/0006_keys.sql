-- Virtual keys that were made with `nightkeep keys create`; the configured ones stand in nightkeep.toml.
-- Only hashes are kept. Rows are never deleted: a gateway that ever had a key never becomes open by itself, and what
-- was booked under a key's name stays explained. Times are milliseconds since 1970.

CREATE TABLE keys (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    scope TEXT NOT NULL,
    hash TEXT NOT NULL UNIQUE,
    fingerprint TEXT NOT NULL,
    models TEXT NOT NULL,
    tags TEXT NOT NULL,
    default_tag TEXT,
    limits TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    expires_at BIGINT,
    revoked_at BIGINT,
    rotated_from TEXT,
    replaced_by TEXT,
    last_used_at BIGINT
);
CREATE UNIQUE INDEX keys_name ON keys (name) WHERE revoked_at IS NULL AND replaced_by IS NULL;

-- What was done to which key, by whom and why; its highest number is the version that other processes look for.
CREATE TABLE key_log (
    n BIGINT PRIMARY KEY,
    at BIGINT NOT NULL,
    key_id TEXT NOT NULL,
    verb TEXT NOT NULL,
    by_whom TEXT NOT NULL,
    why TEXT NOT NULL
);
