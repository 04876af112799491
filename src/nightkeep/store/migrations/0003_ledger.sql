-- The ledger: what every attempt cost, and every correction of it. Append-only; it outlives the record of calls.
-- Every column that counts is additive: an adjustment carries differences, so that totals are plain sums.
-- Times are milliseconds since 1970, money micro-dollars (never NULL in cost_micro_usd; what has no price is basis
-- 'unpriced' at 0).
--
-- kind         attempt: a request that was sent. adjustment: a correction, or a request that only the bill knows.
-- at           when the attempt left; an adjustment's is that of what it corrects, booked_at says when it was made.
-- basis        attempt: usage | open | free | unpriced. adjustment: bill (of one request), report (a request that we
--              had no row of), total (a whole account, model and day).
-- is_estimate  1: the cost is what was reserved, nobody said what was billed; -1: this adjustment settles such a row.
--              So its sum is the number of estimates that stand; estimated_micro_usd adds up what they come to.
-- is_unpriced  the same for rows without a price.
-- uncached_micro_usd  what it would have cost without the provider's cache, asked_micro_usd what the first target of
--              the alias would have cost; NULL where not known.
-- adjusts      the row that an adjustment corrects; NULL for 'report' and 'total', whose note says why.

CREATE TABLE ledger (
    id TEXT PRIMARY KEY,
    at BIGINT NOT NULL,
    ended_at BIGINT NOT NULL,
    booked_at BIGINT,
    kind TEXT NOT NULL,
    call_id TEXT,
    n INTEGER,
    run_id TEXT,
    scope TEXT NOT NULL,
    tag TEXT,
    task TEXT,
    agent TEXT NOT NULL,
    key_name TEXT NOT NULL,
    release_name TEXT NOT NULL,
    provider TEXT NOT NULL,
    account TEXT NOT NULL,
    model TEXT NOT NULL,
    asked TEXT NOT NULL,
    alias TEXT,
    price TEXT NOT NULL,
    basis TEXT NOT NULL,
    input_tokens BIGINT NOT NULL,
    cache_read_tokens BIGINT NOT NULL,
    cache_write_5m_tokens BIGINT NOT NULL,
    cache_write_1h_tokens BIGINT NOT NULL,
    output_tokens BIGINT NOT NULL,
    reasoning_tokens BIGINT NOT NULL,
    reserved_micro_usd BIGINT,
    cost_micro_usd BIGINT NOT NULL,
    uncached_micro_usd BIGINT,
    asked_micro_usd BIGINT,
    is_estimate SMALLINT NOT NULL,
    estimated_micro_usd BIGINT NOT NULL,
    is_unpriced SMALLINT NOT NULL,
    outcome TEXT NOT NULL,
    request_id TEXT NOT NULL,
    adjusts TEXT,
    note TEXT,
    owner TEXT NOT NULL
);
CREATE INDEX ledger_at ON ledger (at);
CREATE INDEX ledger_adjusts ON ledger (adjusts) WHERE adjusts IS NOT NULL;

-- Each comparison with a provider's own report that booked something or found something.
CREATE TABLE reconciliations (
    id TEXT PRIMARY KEY,
    at BIGINT NOT NULL,
    made_by TEXT NOT NULL,
    provider TEXT NOT NULL,
    account TEXT,
    since_at BIGINT,
    until_at BIGINT NOT NULL,
    billed_requests BIGINT NOT NULL,
    billed_micro_usd BIGINT NOT NULL,
    booked BIGINT NOT NULL,
    booked_micro_usd BIGINT NOT NULL,
    differences TEXT NOT NULL
);
