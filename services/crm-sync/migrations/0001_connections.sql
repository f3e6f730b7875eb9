-- A CRM, or any HTTPS endpoint, that a workspace's leads are kept in step with.
CREATE TABLE connections (
    workspace_id        text NOT NULL,
    id                  text NOT NULL,
    name                text NOT NULL CHECK (name <> ''),
    vendor              text NOT NULL CHECK (vendor IN ('hubspot', 'webhook')),
    mode                text NOT NULL CHECK (mode IN ('all', 'selected')),
    on_delete           text NOT NULL CHECK (on_delete IN ('keep', 'archive')),
    settings            jsonb NOT NULL,
    time_zone           text,           -- the account's; its daily limits end at midnight there
    -- Whether leads are sent, and what a person has to do if not.
    status              text NOT NULL DEFAULT 'active'
                        CHECK (status IN ('active', 'paused', 'needs_reauth', 'needs_mapping', 'disabled')),
    status_reason       text,
    -- The breaker, shared by all workers: open until paused_until, then half open until trouble_count is 0 again.
    trouble_kind        text CHECK (trouble_kind IN ('transient', 'rate_limited')),
    trouble_reason      text,
    trouble_count       integer NOT NULL DEFAULT 0,
    paused_until        timestamptz,
    credentials         text,           -- sealed by the vault; gone once the connection is deleted
    credentials_set_at  timestamptz NOT NULL DEFAULT now(),
    token_expires_at    timestamptz,    -- of an OAuth access token; NULL: none is held, or it does not end
    refresh_lease       text,           -- whoever refreshes the token now
    refresh_lease_until timestamptz,
    mapping             jsonb NOT NULL,
    mapping_version     bigint NOT NULL DEFAULT 1,
    prepared_at         timestamptz,    -- when the vendor's side was last seen to hold what we need there
    backfill_after      text,           -- leads up to this id have their row; NULL: all have
    version             bigint NOT NULL DEFAULT 1,
    created_at          timestamptz NOT NULL DEFAULT now(),
    updated_at          timestamptz NOT NULL DEFAULT now(),
    deleted_at          timestamptz,
    PRIMARY KEY (workspace_id, id),
    CHECK ((deleted_at IS NULL) = (credentials IS NOT NULL)),
    CHECK ((trouble_count = 0) = (trouble_kind IS NULL))
);
CREATE UNIQUE INDEX connections_name ON connections (workspace_id, lower(name)) WHERE deleted_at IS NULL;
CREATE INDEX connections_listed ON connections (workspace_id, created_at DESC, id DESC) WHERE deleted_at IS NULL;

-- A connection as the service reads it, with what depends on the database's clock.
CREATE VIEW live_connections AS
SELECT workspace_id, id, name, vendor, mode, on_delete, settings, time_zone, status, status_reason,
       trouble_kind, trouble_reason, trouble_count, paused_until,
       coalesce(paused_until > now(), false) AS is_resting,
       credentials AS sealed, credentials_set_at, token_expires_at,
       extract(epoch FROM token_expires_at - now())::float8 AS token_seconds_left,
       mapping, mapping_version, prepared_at, backfill_after IS NOT NULL AS is_backfilling,
       version, created_at, updated_at
FROM connections WHERE deleted_at IS NULL;
