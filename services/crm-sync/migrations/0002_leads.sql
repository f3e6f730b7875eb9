-- What leads has told us of each lead: the newest version only. A deleted lead stays as a tombstone, so that an update
-- that comes late finds something newer than itself.
CREATE TABLE lead_copies (
    workspace_id text NOT NULL,
    lead_id      text NOT NULL,
    version      bigint NOT NULL,
    deleted      boolean NOT NULL,
    lead         jsonb NOT NULL,
    changed_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workspace_id, lead_id)
) WITH (fillfactor = 80);

-- What each connection should hold of a lead, and what it does hold.
--   idle ── wanted ──> due ── claimed ──> in_flight ── answered ──> idle | due (again, later) | dead
--                       ^                    │ no answer, or its worker died
--                       └──── looked up ── unknown
CREATE TABLE sync_states (
    workspace_id      text NOT NULL,
    connection_id     text NOT NULL,
    lead_id           text NOT NULL,
    desired_version   bigint NOT NULL,
    synced_version    bigint NOT NULL DEFAULT 0,
    in_flight_version bigint,           -- the version of the last call, committed before it
    in_flight_record  text,             -- the record it was addressed to; NULL: by our own unique property
    state             text NOT NULL CHECK (state IN ('idle', 'due', 'in_flight', 'unknown', 'dead')),
    next_try_at       timestamptz NOT NULL DEFAULT now(),   -- of a row in flight: when its worker counts as dead
    lease_token       text,
    attempts          integer NOT NULL DEFAULT 0,   -- failures in a row that were this lead's own
    unknowns          integer NOT NULL DEFAULT 0,   -- answers in a row that did not say what became of it
    suspect           boolean NOT NULL DEFAULT false,   -- was in a call that failed as a whole: is sent alone
    mapping_version   bigint NOT NULL DEFAULT 0,    -- the mapping it was last sent with
    sent              jsonb,            -- the properties the record was last given
    last_error        jsonb,
    dead_letter_id    text,
    dead_kind         text CHECK (dead_kind IN ('permanent', 'unknown', 'duplicate_external')),
    dead_at           timestamptz,
    event_count       bigint NOT NULL DEFAULT 0,
    attempt_log       jsonb NOT NULL DEFAULT '[]',  -- calls since the last event
    chain             text NOT NULL DEFAULT '',     -- of what asked for the desired version
    request_id        text,
    traceparent       text,
    created_at        timestamptz NOT NULL DEFAULT now(),
    updated_at        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workspace_id, connection_id, lead_id),
    FOREIGN KEY (workspace_id, connection_id) REFERENCES connections (workspace_id, id),
    CHECK ((state = 'in_flight') = (lease_token IS NOT NULL)),
    CHECK ((state = 'dead') = (dead_letter_id IS NOT NULL AND dead_kind IS NOT NULL AND dead_at IS NOT NULL))
) WITH (fillfactor = 70);
CREATE INDEX sync_states_work ON sync_states (workspace_id, connection_id, next_try_at, lead_id)
    WHERE state IN ('due', 'in_flight', 'unknown');
CREATE INDEX sync_states_lead ON sync_states (workspace_id, lead_id);
CREATE INDEX sync_states_mapping ON sync_states (workspace_id, connection_id, mapping_version)
    WHERE state = 'idle' AND sent IS NOT NULL;
CREATE UNIQUE INDEX sync_states_dead_letter ON sync_states (workspace_id, dead_letter_id) WHERE state = 'dead';
CREATE INDEX sync_states_dead ON sync_states (workspace_id, dead_at DESC, dead_letter_id DESC) WHERE state = 'dead';

-- Which record a lead is at a connection. A record has one holder; what was released stays on file.
CREATE TABLE links (
    workspace_id  text NOT NULL,
    connection_id text NOT NULL,
    link_no       bigint GENERATED ALWAYS AS IDENTITY,
    lead_id       text NOT NULL,
    external_id   text NOT NULL,
    linked_at     timestamptz NOT NULL DEFAULT now(),
    released_at   timestamptz,
    PRIMARY KEY (workspace_id, connection_id, link_no),
    FOREIGN KEY (workspace_id, connection_id) REFERENCES connections (workspace_id, id)
);
CREATE UNIQUE INDEX links_record ON links (workspace_id, connection_id, external_id) WHERE released_at IS NULL;
CREATE UNIQUE INDEX links_lead ON links (workspace_id, connection_id, lead_id) WHERE released_at IS NULL;
CREATE INDEX links_released ON links (released_at) WHERE released_at IS NOT NULL;
