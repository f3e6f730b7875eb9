-- Events committed with the change they announce. A row is its writer's for ten seconds, then any relay's.
CREATE TABLE outbox (
    event_id        text PRIMARY KEY,
    seq             bigint GENERATED ALWAYS AS IDENTITY,
    workspace_id    text NOT NULL,
    type            text NOT NULL,
    subject         text NOT NULL,
    subject_version bigint,
    body            bytea NOT NULL CHECK (octet_length(body) <= 262144),
    created_at      timestamptz NOT NULL DEFAULT now(),
    claimed_until   timestamptz NOT NULL DEFAULT now() + interval '10 seconds',
    attempts        integer NOT NULL DEFAULT 0,
    published_at    timestamptz,
    parked_at       timestamptz,
    parked_reason   text,
    UNIQUE (workspace_id, subject, subject_version)
) WITH (fillfactor = 85);
CREATE INDEX outbox_waiting ON outbox (seq) WHERE published_at IS NULL;
CREATE INDEX outbox_published ON outbox (published_at) WHERE published_at IS NOT NULL;

-- Events a queue's consumer has had its effect of.
CREATE TABLE inbox (
    queue    text NOT NULL,
    event_id text NOT NULL,
    taken_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (queue, event_id)
);
CREATE INDEX inbox_taken ON inbox (taken_at);

-- Events that were being worked on, alone, when their process ended.
CREATE TABLE inbox_suspects (
    queue    text NOT NULL,
    event_id text NOT NULL,
    tries    integer NOT NULL,
    at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (queue, event_id)
);

-- A write's key, and its answer once it has one.
CREATE TABLE idempotency_keys (
    workspace_id text NOT NULL,
    principal    text NOT NULL,
    key          text NOT NULL,
    fingerprint  bytea NOT NULL,
    status       smallint,
    headers      jsonb,
    body         bytea,
    created_at   timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz NOT NULL,
    PRIMARY KEY (workspace_id, principal, key)
);
CREATE INDEX idempotency_keys_expiry ON idempotency_keys (expires_at);

-- What a seed has put here once; it is not put here again.
CREATE TABLE seeds (
    name text PRIMARY KEY,
    at   timestamptz NOT NULL DEFAULT now()
);
