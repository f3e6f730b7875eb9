-- Connections, where leads stand, and dead letters: what the HTTP side reads and writes.
-- Every statement names the workspace first. `live_connections` leaves out what is deleted.

-- name: insert_connection
INSERT INTO connections (
    workspace_id, id, name, vendor, mode, on_delete, settings, time_zone, credentials, token_expires_at,
    mapping, backfill_after
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, now() + $10::float8 * interval '1 second', $11, $12);

-- name: find_connection_by_name
SELECT id FROM live_connections WHERE workspace_id = $1 AND lower(name) = lower($2);

-- name: read_connection
SELECT * FROM live_connections WHERE workspace_id = $1 AND id = $2;

-- name: lock_connection
SELECT id FROM connections WHERE workspace_id = $1 AND id = $2 AND deleted_at IS NULL FOR NO KEY UPDATE;

-- name: list_connections
SELECT * FROM live_connections
WHERE workspace_id = $1
  AND ($2::text IS NULL OR vendor = $2)
  AND ($3::text IS NULL OR status = $3)
  AND ($4::timestamptz IS NULL OR (created_at, id) < ($4, $5::text))
ORDER BY created_at DESC, id DESC
LIMIT $6;

-- name: update_connection
UPDATE connections
SET name = $3, mode = $4, on_delete = $5, settings = $6, time_zone = $7,
    backfill_after = CASE WHEN $8 THEN '' ELSE backfill_after END,
    version = version + 1, updated_at = now()
WHERE workspace_id = $1 AND id = $2;

-- name: replace_credentials
UPDATE connections
SET credentials = $3, token_expires_at = NULL, credentials_set_at = now(), prepared_at = NULL,
    refresh_lease = NULL, refresh_lease_until = NULL,
    trouble_kind = NULL, trouble_reason = NULL, trouble_count = 0, paused_until = NULL,
    status = CASE WHEN status = 'needs_reauth' THEN 'active' ELSE status END,
    status_reason = CASE WHEN status = 'needs_reauth' THEN NULL ELSE status_reason END
WHERE workspace_id = $1 AND id = $2;

-- name: set_status
UPDATE connections
SET status = $3, status_reason = $4, version = version + 1, updated_at = now(),
    trouble_kind = NULL, trouble_reason = NULL, trouble_count = 0, paused_until = NULL
WHERE workspace_id = $1 AND id = $2;

-- name: replace_mapping
UPDATE connections
SET mapping = $3, mapping_version = mapping_version + 1, version = version + 1, updated_at = now(),
    status = CASE WHEN status = 'needs_mapping' THEN 'active' ELSE status END,
    status_reason = CASE WHEN status = 'needs_mapping' THEN NULL ELSE status_reason END
WHERE workspace_id = $1 AND id = $2;

-- name: record_preparation
-- What a successful look at the vendor's side says; trouble that was known is over. Nothing, if the look was taken with
-- credentials or a mapping that have been replaced meanwhile.
UPDATE connections
SET prepared_at = now(), time_zone = coalesce(time_zone, $4), account_id = coalesce(account_id, $5),
    trouble_kind = NULL, trouble_reason = NULL, trouble_count = 0, paused_until = NULL,
    status = CASE WHEN status IN ('needs_reauth', 'needs_mapping') THEN 'active' ELSE status END,
    status_reason = CASE WHEN status IN ('needs_reauth', 'needs_mapping') THEN NULL ELSE status_reason END
WHERE workspace_id = $1 AND id = $2 AND credentials_set_at = $3 AND mapping_version = $6 AND deleted_at IS NULL
  AND (account_id IS NULL OR $5::text IS NULL OR account_id = $5);

-- name: delete_connection
UPDATE connections
SET deleted_at = now(), credentials = NULL, token_expires_at = NULL, status = 'paused', status_reason = 'deleted',
    refresh_lease = NULL, refresh_lease_until = NULL, backfill_after = NULL, version = version + 1, updated_at = now()
WHERE workspace_id = $1 AND id = $2;

-- name: lock_workspace
-- Consumers hold this shared while they fan leads out; whoever changes which connections there are waits for them,
-- so that no lead falls between a consumer that has not seen the connection and a backfill that has not seen the lead.
SELECT pg_advisory_xact_lock(727002, hashtext($1));

-- name: read_copy
SELECT version, deleted FROM lead_copies WHERE workspace_id = $1 AND lead_id = $2 FOR SHARE;

-- name: enrol_lead
INSERT INTO sync_states AS held (
    workspace_id, connection_id, lead_id, desired_version, state, chain, request_id, traceparent
)
SELECT $1, connection.id, $2, $3::bigint, 'due', $5, $6, $7
FROM connections connection
WHERE connection.workspace_id = $1 AND connection.deleted_at IS NULL AND ($4::text IS NULL OR connection.id = $4)
ORDER BY connection.id
ON CONFLICT (workspace_id, connection_id, lead_id) DO UPDATE
SET desired_version = GREATEST(held.desired_version, excluded.desired_version),
    state = 'due', next_try_at = now(), attempts = 0, unknowns = 0,
    dead_letter_id = NULL, dead_kind = NULL, dead_at = NULL,
    chain = excluded.chain, request_id = excluded.request_id, traceparent = excluded.traceparent, updated_at = now()
WHERE held.state = 'dead'
   OR (held.state = 'idle' AND GREATEST(held.desired_version, excluded.desired_version) > held.synced_version);

-- name: raise_desired
-- For leads on their way: the newer wish is seen when the call comes back.
UPDATE sync_states SET desired_version = $3, chain = $5, request_id = $6, traceparent = $7, updated_at = now()
WHERE workspace_id = $1 AND lead_id = $2 AND desired_version < $3 AND ($4::text IS NULL OR connection_id = $4);

-- name: notify_workers
SELECT pg_notify('crm_sync_due', $1 || '/' || connection_id)
FROM sync_states WHERE workspace_id = $1 AND lead_id = $2 AND state = 'due';

-- name: notify_connection
SELECT pg_notify('crm_sync_due', $1 || '/' || $2);

-- name: read_standings
SELECT state.connection_id, connection.name AS connection_name, connection.vendor, connection.status AS connection_status,
       CASE WHEN connection.is_resting THEN connection.paused_until END AS paused_until,
       state.lead_id, state.desired_version, state.synced_version, state.state, copy.version AS copy_version,
       link.external_id, state.attempts,
       CASE WHEN state.state IN ('due', 'unknown') THEN GREATEST(state.next_try_at, connection.paused_until) END AS next_try_at,
       state.last_error, state.dead_letter_id, state.dead_kind, state.updated_at
FROM sync_states state
JOIN live_connections connection ON connection.workspace_id = state.workspace_id AND connection.id = state.connection_id
LEFT JOIN lead_copies copy ON copy.workspace_id = state.workspace_id AND copy.lead_id = state.lead_id
LEFT JOIN links link ON link.workspace_id = state.workspace_id AND link.connection_id = state.connection_id
     AND link.lead_id = state.lead_id AND link.released_at IS NULL
WHERE state.workspace_id = $1 AND state.lead_id = $2 AND ($3::text IS NULL OR state.connection_id = $3)
ORDER BY connection.created_at, connection.id;

-- name: lead_is_known
SELECT EXISTS (SELECT 1 FROM lead_copies WHERE workspace_id = $1 AND lead_id = $2);

-- name: list_dead_letters
SELECT state.dead_letter_id AS id, state.connection_id, connection.name AS connection_name, connection.vendor,
       state.lead_id, state.desired_version AS version, state.dead_kind AS kind, state.last_error AS error,
       state.attempts, state.dead_at
FROM sync_states state
JOIN live_connections connection ON connection.workspace_id = state.workspace_id AND connection.id = state.connection_id
WHERE state.workspace_id = $1 AND state.state = 'dead'
  AND ($2::text IS NULL OR state.connection_id = $2)
  AND ($3::text IS NULL OR state.dead_kind = $3)
  AND ($4::text IS NULL OR state.lead_id = $4)
  AND ($5::timestamptz IS NULL OR (state.dead_at, state.dead_letter_id) < ($5, $6::text))
ORDER BY state.dead_at DESC, state.dead_letter_id DESC
LIMIT $7;

-- name: replay_dead_letters
WITH replayed AS (
    UPDATE sync_states state
    SET state = 'due', next_try_at = now(), attempts = 0, unknowns = 0, suspect = false,
        dead_letter_id = NULL, dead_kind = NULL, dead_at = NULL, request_id = $5, updated_at = now()
    FROM connections connection
    WHERE connection.workspace_id = state.workspace_id AND connection.id = state.connection_id
      AND connection.deleted_at IS NULL
      AND state.workspace_id = $1 AND state.state = 'dead'
      AND ($2::text IS NULL OR state.dead_letter_id = $2)
      AND ($3::text IS NULL OR state.connection_id = $3)
      AND ($4::text IS NULL OR state.dead_kind = $4)
    RETURNING state.connection_id, state.lead_id
)
SELECT connection_id, count(*) AS leads, min(lead_id) AS lead_id FROM replayed GROUP BY connection_id;

-- name: sealed_credentials
-- Across workspaces: only the key rotation asks.
SELECT workspace_id, id, credentials FROM connections
WHERE deleted_at IS NULL AND (workspace_id, id) > ($1, $2)
ORDER BY workspace_id, id LIMIT 100
FOR NO KEY UPDATE;

-- name: reseal_credentials
UPDATE connections SET credentials = $3 WHERE workspace_id = $1 AND id = $2 AND deleted_at IS NULL;
