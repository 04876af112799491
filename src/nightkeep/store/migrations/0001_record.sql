-- The record: calls, their attempts, the runs they belong to, bodies, and answers kept for idempotency keys.
-- Times are milliseconds since 1970; durations milliseconds; costs micro-dollars, NULL where not known.
-- Ids sort by time, so "newest first" is "ORDER BY id DESC" and needs no index of its own.
-- Portable: PostgreSQL reads BLOB as BYTEA; nothing else differs.

CREATE TABLE runs (
    id TEXT PRIMARY KEY,
    scope TEXT NOT NULL,
    source TEXT NOT NULL,
    session TEXT NOT NULL,
    agent TEXT NOT NULL,
    started_at BIGINT NOT NULL,
    last_at BIGINT NOT NULL,
    calls BIGINT NOT NULL,
    failures BIGINT NOT NULL,
    tokens BIGINT NOT NULL,
    cost_micro_usd BIGINT NOT NULL,
    unpriced_calls BIGINT NOT NULL
);
CREATE INDEX runs_last_at ON runs (last_at);

CREATE TABLE calls (
    id TEXT PRIMARY KEY,
    run_id TEXT,
    scope TEXT NOT NULL,
    tag TEXT,
    task TEXT,
    key_name TEXT NOT NULL,
    agent TEXT NOT NULL,
    peer TEXT NOT NULL,
    wire TEXT NOT NULL,
    operation TEXT NOT NULL,
    door TEXT NOT NULL,
    asked TEXT NOT NULL,
    alias TEXT,
    rule TEXT,
    provider TEXT NOT NULL,
    account TEXT NOT NULL,
    served TEXT NOT NULL,
    is_stream SMALLINT NOT NULL,
    started_at BIGINT NOT NULL,
    duration_ms DOUBLE PRECISION,
    first_byte_ms DOUBLE PRECISION,
    outcome TEXT NOT NULL,
    status INTEGER,
    error_code TEXT,
    error_message TEXT,
    bytes_out BIGINT NOT NULL,
    bytes_in BIGINT NOT NULL,
    input_tokens BIGINT,
    cache_read_tokens BIGINT,
    cache_write_5m_tokens BIGINT,
    cache_write_1h_tokens BIGINT,
    output_tokens BIGINT,
    reasoning_tokens BIGINT,
    cost_micro_usd BIGINT,
    stripped TEXT,
    degraded TEXT,
    cache TEXT,
    idempotency TEXT,
    request_hash TEXT,
    request_blob TEXT,
    response_blob TEXT,
    headers TEXT
);
CREATE INDEX calls_run ON calls (run_id);
CREATE INDEX calls_running ON calls (id) WHERE outcome = 'running';

CREATE TABLE attempts (
    call_id TEXT NOT NULL REFERENCES calls (id) ON DELETE CASCADE,
    n INTEGER NOT NULL,
    provider TEXT NOT NULL,
    account TEXT NOT NULL,
    model TEXT NOT NULL,
    wire TEXT NOT NULL,
    started_at BIGINT NOT NULL,
    duration_ms DOUBLE PRECISION,
    first_byte_ms DOUBLE PRECISION,
    outcome TEXT NOT NULL,
    status INTEGER NOT NULL,
    provider_code TEXT,
    message TEXT,
    retry_after_s DOUBLE PRECISION,
    bytes_out BIGINT NOT NULL,
    input_tokens BIGINT,
    cache_read_tokens BIGINT,
    cache_write_5m_tokens BIGINT,
    cache_write_1h_tokens BIGINT,
    output_tokens BIGINT,
    reasoning_tokens BIGINT,
    cost_micro_usd BIGINT,
    PRIMARY KEY (call_id, n)
);

CREATE TABLE blobs (
    hash TEXT PRIMARY KEY,
    codec TEXT NOT NULL,
    size BIGINT NOT NULL,
    data BLOB NOT NULL,
    last_at BIGINT NOT NULL
);
CREATE INDEX blobs_last_at ON blobs (last_at);

CREATE TABLE idempotency (
    scope TEXT NOT NULL,
    idempotency_key TEXT NOT NULL,
    request_hash TEXT NOT NULL,
    state TEXT NOT NULL,
    call_id TEXT NOT NULL,
    status INTEGER,
    headers TEXT,
    body_blob TEXT,
    started_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (scope, idempotency_key)
);
CREATE INDEX idempotency_expires_at ON idempotency (expires_at);

CREATE TABLE account_states (
    account TEXT PRIMARY KEY,
    body TEXT NOT NULL,
    updated_at BIGINT NOT NULL
);
