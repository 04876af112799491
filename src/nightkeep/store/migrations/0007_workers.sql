-- Several processes on one database: who they are, and what one of them must tell the others about accounts.
-- Times are milliseconds since 1970.

CREATE TABLE owners (
    id TEXT PRIMARY KEY,
    slot INTEGER NOT NULL,
    pid BIGINT NOT NULL,
    started_at BIGINT NOT NULL,
    ended_at BIGINT,
    how TEXT
);

CREATE TABLE account_news (
    id TEXT PRIMARY KEY,
    at BIGINT NOT NULL,
    owner TEXT NOT NULL,
    account TEXT NOT NULL,
    key_fingerprint TEXT NOT NULL,
    state TEXT NOT NULL
);
CREATE INDEX account_news_at ON account_news (at);
