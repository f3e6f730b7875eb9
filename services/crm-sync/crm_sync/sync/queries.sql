-- What the worker reads and writes. Times are the database's; a lease is fenced by its token in every later statement.

-- name: share_workspaces
SELECT pg_advisory_xact_lock_shared(727002, hashtext(workspace_id))
FROM (SELECT DISTINCT workspace_id FROM unnest($1::text[]) AS given (workspace_id) ORDER BY 1) AS each;

-- name: take_copies
INSERT INTO lead_copies AS held (workspace_id, lead_id, version, deleted, lead)
SELECT workspace_id, lead_id, version, deleted, lead::jsonb
FROM unnest($1::text[], $2::text[], $3::bigint[], $4::boolean[], $5::text[])
     AS given (workspace_id, lead_id, version, deleted, lead)
ORDER BY workspace_id, lead_id
ON CONFLICT (workspace_id, lead_id) DO UPDATE
SET version = excluded.version, deleted = excluded.deleted, lead = excluded.lead, changed_at = now()
WHERE held.version < excluded.version
RETURNING workspace_id, lead_id;

-- name: want_leads
-- For the copies just taken: every connection that holds the lead already, and those that take all leads.
INSERT INTO sync_states AS held (
    workspace_id, connection_id, lead_id, desired_version, state, chain, request_id, traceparent
)
SELECT given.workspace_id, connection.id, given.lead_id, given.version, 'due',
       given.chain, given.request_id, given.traceparent
FROM unnest($1::text[], $2::text[], $3::bigint[], $4::boolean[], $5::text[], $6::text[], $7::text[])
     AS given (workspace_id, lead_id, version, deleted, chain, request_id, traceparent)
JOIN connections connection ON connection.workspace_id = given.workspace_id AND connection.deleted_at IS NULL
LEFT JOIN sync_states existing ON existing.workspace_id = given.workspace_id
     AND existing.connection_id = connection.id AND existing.lead_id = given.lead_id
WHERE existing.lead_id IS NOT NULL OR (connection.mode = 'all' AND NOT given.deleted)
ORDER BY given.workspace_id, connection.id, given.lead_id
ON CONFLICT (workspace_id, connection_id, lead_id) DO UPDATE
SET desired_version = excluded.desired_version,
    state = CASE WHEN held.state IN ('idle', 'dead') THEN 'due' ELSE held.state END,
    next_try_at = CASE WHEN held.state IN ('in_flight', 'unknown') THEN held.next_try_at ELSE now() END,
    attempts = CASE WHEN held.state IN ('in_flight', 'unknown') THEN held.attempts ELSE 0 END,
    unknowns = CASE WHEN held.state IN ('in_flight', 'unknown') THEN held.unknowns ELSE 0 END,
    dead_letter_id = NULL, dead_kind = NULL, dead_at = NULL,
    chain = excluded.chain, request_id = excluded.request_id, traceparent = excluded.traceparent, updated_at = now()
WHERE held.desired_version <= excluded.desired_version
RETURNING workspace_id, connection_id;

-- name: due_connections
SELECT connection.workspace_id, connection.id
FROM live_connections connection
WHERE connection.status = 'active' AND NOT connection.is_resting
  AND EXISTS (
    SELECT 1 FROM sync_states state
    JOIN lead_copies copy ON copy.workspace_id = state.workspace_id AND copy.lead_id = state.lead_id
         AND copy.version >= state.desired_version
    WHERE state.workspace_id = connection.workspace_id AND state.connection_id = connection.id
      AND state.state IN ('due', 'in_flight', 'unknown') AND state.next_try_at <= now()
);

-- name: read_connection
SELECT * FROM live_connections WHERE workspace_id = $1 AND id = $2;

-- name: claim_leads
-- The leads whose time has come, longest due first; one that is suspect goes alone. What is claimed, with which content and
-- under which identity, is committed with this statement, before the call. Rows found in flight or unknown keep what their
-- earlier call was about: that is looked up first, where it can be ($6).
WITH candidates AS MATERIALIZED (
    SELECT state.lead_id, state.state, state.suspect, state.next_try_at, state.in_flight_version, state.in_flight_record,
           state.in_flight_lead, copy.version AS copy_version, copy.deleted, copy.lead, link.external_id
    FROM sync_states state
    JOIN lead_copies copy ON copy.workspace_id = state.workspace_id AND copy.lead_id = state.lead_id
         AND copy.version >= state.desired_version
    LEFT JOIN links link ON link.workspace_id = state.workspace_id AND link.connection_id = state.connection_id
         AND link.lead_id = state.lead_id AND link.released_at IS NULL
    WHERE state.workspace_id = $1 AND state.connection_id = $2
      AND state.state IN ('due', 'in_flight', 'unknown') AND state.next_try_at <= now()
    ORDER BY state.next_try_at, state.lead_id
    LIMIT $3
    FOR UPDATE OF state SKIP LOCKED
), foremost AS (
    SELECT lead_id, suspect FROM candidates ORDER BY next_try_at, lead_id LIMIT 1
), picked AS (
    SELECT candidates.* FROM candidates, foremost
    WHERE CASE WHEN foremost.suspect THEN candidates.lead_id = foremost.lead_id ELSE NOT candidates.suspect END
)
UPDATE sync_states state
SET state = 'in_flight', lease_token = $4, next_try_at = now() + $5::float8 * interval '1 second',
    in_flight_version = CASE WHEN picked.state = 'due' OR NOT $6 THEN picked.copy_version ELSE state.in_flight_version END,
    in_flight_record = CASE WHEN picked.state = 'due' OR NOT $6 THEN picked.external_id ELSE state.in_flight_record END,
    in_flight_lead = CASE WHEN picked.state = 'due' OR NOT $6 THEN picked.lead ELSE state.in_flight_lead END
FROM picked
WHERE state.workspace_id = $1 AND state.connection_id = $2 AND state.lead_id = picked.lead_id
RETURNING state.lead_id, picked.state <> 'due' AND $6 AS resolving, state.in_flight_version,
          state.in_flight_record AS addressed_record,
          CASE WHEN picked.state <> 'due' THEN picked.in_flight_lead END AS unsettled_lead, picked.copy_version, picked.deleted, picked.lead,
          picked.external_id AS record_id, state.sent, state.attempts, state.unknowns, state.suspect,
          state.attempt_log, state.chain, state.request_id, state.traceparent;

-- name: renew_lease
UPDATE sync_states SET next_try_at = now() + $4::float8 * interval '1 second'
WHERE workspace_id = $1 AND connection_id = $2 AND lease_token = $3;

-- name: hand_back
-- Claimed but not sent: as it was before, for whoever comes next. If an earlier call's outcome is open and cannot be looked up,
-- what the record is known to hold says so from now on.
UPDATE sync_states state
SET state = CASE WHEN given.resolving THEN 'unknown' ELSE 'due' END, lease_token = NULL, next_try_at = now(),
    sent = CASE WHEN given.resolving THEN state.sent ELSE given.held::jsonb END
FROM unnest($4::text[], $5::boolean[], $6::text[]) AS given (lead_id, resolving, held)
WHERE state.workspace_id = $1 AND state.connection_id = $2 AND state.lease_token = $3 AND state.lead_id = given.lead_id;

-- name: hold_claims
SELECT lead_id FROM sync_states
WHERE workspace_id = $1 AND connection_id = $2 AND lease_token = $3 AND lead_id = ANY($4::text[])
ORDER BY lead_id
FOR UPDATE;

-- name: release_links
UPDATE links SET released_at = now()
WHERE workspace_id = $1 AND connection_id = $2 AND lead_id = ANY($3::text[]) AND released_at IS NULL
RETURNING lead_id;

-- name: insert_links
INSERT INTO links (workspace_id, connection_id, lead_id, external_id)
SELECT $1, $2, lead_id, external_id FROM unnest($3::text[], $4::text[]) AS given (lead_id, external_id)
ORDER BY external_id
ON CONFLICT DO NOTHING
RETURNING lead_id;

-- name: link_holders
SELECT external_id, lead_id FROM links
WHERE workspace_id = $1 AND connection_id = $2 AND external_id = ANY($3::text[]) AND released_at IS NULL;

-- name: write_again
-- Another lead's data has landed on these leads' records: they are brought over once more. A call that is out for one of them
-- may have come before that data: its claim is taken away, and the lead is due when that call is over.
UPDATE sync_states
SET sent = NULL, state = CASE WHEN state IN ('idle', 'in_flight') THEN 'due' ELSE state END, lease_token = NULL,
    next_try_at = CASE WHEN state = 'idle' THEN now() ELSE next_try_at END
WHERE workspace_id = $1 AND connection_id = $2 AND lead_id = ANY($3::text[]) AND lease_token IS DISTINCT FROM $4;

-- name: settle_leads
-- A completion raises the synced version and takes nothing away of what was wanted meanwhile.
UPDATE sync_states state
SET state = CASE WHEN given.state IN ('idle', 'dead') AND state.desired_version > given.version THEN 'due'
                 ELSE given.state END,
    next_try_at = now() + given.delay_seconds * interval '1 second',
    lease_token = NULL,
    in_flight_version = CASE WHEN given.state = 'unknown' THEN state.in_flight_version END,
    in_flight_record = CASE WHEN given.state = 'unknown' THEN state.in_flight_record END,
    in_flight_lead = CASE WHEN given.state = 'unknown' THEN state.in_flight_lead END,
    synced_version = CASE WHEN given.is_synced THEN GREATEST(state.synced_version, given.version)
                          ELSE state.synced_version END,
    mapping_version = CASE WHEN given.is_synced THEN $4 ELSE state.mapping_version END,
    attempts = given.attempts, unknowns = given.unknowns, suspect = given.suspect,
    sent = given.sent::jsonb, last_error = given.error::jsonb, attempt_log = given.attempt_log::jsonb,
    dead_letter_id = CASE WHEN given.state = 'dead' AND state.desired_version <= given.version THEN given.dead_letter_id END,
    dead_kind = CASE WHEN given.state = 'dead' AND state.desired_version <= given.version THEN given.dead_kind END,
    dead_at = CASE WHEN given.state = 'dead' AND state.desired_version <= given.version THEN now() END,
    event_count = state.event_count + given.announces::int,
    updated_at = now()
FROM unnest(
    $5::text[], $6::text[], $7::bigint[], $8::float8[], $9::boolean[], $10::int[], $11::int[], $12::boolean[],
    $13::text[], $14::text[], $15::text[], $16::text[], $17::text[], $18::boolean[]
) AS given (
    lead_id, state, version, delay_seconds, is_synced, attempts, unknowns, suspect,
    sent, error, attempt_log, dead_letter_id, dead_kind, announces
)
WHERE state.workspace_id = $1 AND state.connection_id = $2 AND state.lease_token = $3 AND state.lead_id = given.lead_id
RETURNING state.lead_id, state.event_count;

-- name: rest_connection
-- The breaker opens: nobody uses the connection before its time.
UPDATE connections
SET trouble_kind = $3, trouble_reason = $4, trouble_count = trouble_count + 1,
    paused_until = GREATEST(paused_until, now() + $5::float8 * interval '1 second')
WHERE workspace_id = $1 AND id = $2 AND deleted_at IS NULL
RETURNING paused_until;

-- name: recover_connection
-- Only if nobody has met new trouble since it was read.
UPDATE connections SET trouble_kind = NULL, trouble_reason = NULL, trouble_count = 0, paused_until = NULL
WHERE workspace_id = $1 AND id = $2 AND trouble_count = $3;

-- name: stop_connection
-- Not if a person has given it other credentials or another mapping since: the trouble was with the old ones.
UPDATE connections
SET status = $5, status_reason = $6, version = version + 1, updated_at = now()
WHERE workspace_id = $1 AND id = $2 AND credentials_set_at = $3 AND mapping_version = $4
  AND status = 'active' AND deleted_at IS NULL;

-- name: forget_preparation
UPDATE connections SET prepared_at = NULL WHERE workspace_id = $1 AND id = $2;

-- name: claim_refresh
-- One refresher at a time. Whoever finds that the token has changed since it was read takes the new one instead.
UPDATE connections SET refresh_lease = $4, refresh_lease_until = now() + $5::float8 * interval '1 second'
WHERE workspace_id = $1 AND id = $2 AND deleted_at IS NULL AND credentials = $3
  AND (refresh_lease IS NULL OR refresh_lease_until <= now())
RETURNING id;

-- name: store_tokens
UPDATE connections
SET credentials = $4, token_expires_at = now() + $5::float8 * interval '1 second',
    refresh_lease = NULL, refresh_lease_until = NULL
WHERE workspace_id = $1 AND id = $2 AND refresh_lease = $3
RETURNING id;

-- name: release_refresh
UPDATE connections SET refresh_lease = NULL, refresh_lease_until = NULL
WHERE workspace_id = $1 AND id = $2 AND refresh_lease = $3;

-- name: living_holders
-- Which of these leads still hold their records: a deleted one whose link is released does not.
SELECT given.lead_id
FROM unnest($3::text[]) AS given (lead_id)
WHERE NOT EXISTS (
    SELECT 1 FROM lead_copies copy
    WHERE copy.workspace_id = $1 AND copy.lead_id = given.lead_id AND copy.deleted
      AND NOT EXISTS (
        SELECT 1 FROM links link
        WHERE link.workspace_id = $1 AND link.connection_id = $2 AND link.lead_id = given.lead_id
          AND link.released_at IS NULL
      )
);

-- name: next_backfill
SELECT workspace_id, id, backfill_after FROM connections
WHERE backfill_after IS NOT NULL AND deleted_at IS NULL
ORDER BY workspace_id, id LIMIT 1
FOR NO KEY UPDATE SKIP LOCKED;

-- name: backfill_leads
WITH page AS (
    SELECT lead_id, version, deleted FROM lead_copies
    WHERE workspace_id = $1 AND lead_id > $3 ORDER BY lead_id LIMIT $4
), wanted AS (
    INSERT INTO sync_states (workspace_id, connection_id, lead_id, desired_version, state)
    SELECT $1, $2, lead_id, version, 'due' FROM page WHERE NOT deleted
    ON CONFLICT DO NOTHING
)
SELECT count(*) AS leads, max(lead_id) AS last FROM page;

-- name: advance_backfill
UPDATE connections SET backfill_after = $3 WHERE workspace_id = $1 AND id = $2;

-- name: want_new_mapping
UPDATE sync_states SET state = 'due', next_try_at = now()
WHERE (workspace_id, connection_id, lead_id) IN (
    SELECT state.workspace_id, state.connection_id, state.lead_id
    FROM live_connections connection
    JOIN sync_states state ON state.workspace_id = connection.workspace_id AND state.connection_id = connection.id
    WHERE state.state = 'idle' AND state.sent IS NOT NULL AND state.mapping_version < connection.mapping_version
    LIMIT $1
    FOR UPDATE OF state SKIP LOCKED
);

-- name: retire_leads
-- What a deleted connection still has on file, a batch at a time.
DELETE FROM sync_states
WHERE (workspace_id, connection_id, lead_id) IN (
    SELECT state.workspace_id, state.connection_id, state.lead_id
    FROM connections connection
    JOIN sync_states state ON state.workspace_id = connection.workspace_id AND state.connection_id = connection.id
    WHERE connection.deleted_at IS NOT NULL
    LIMIT $1
    FOR UPDATE OF state SKIP LOCKED
)
RETURNING workspace_id, connection_id, lead_id, desired_version, event_count, chain, request_id, traceparent;

-- name: deleted_connection
SELECT name, vendor FROM connections WHERE workspace_id = $1 AND id = $2;

-- name: work_state
SELECT count(*) FILTER (WHERE state IN ('due', 'unknown', 'in_flight')) AS waiting,
       count(*) FILTER (WHERE state = 'dead') AS dead,
       coalesce(extract(epoch FROM now() - min(next_try_at) FILTER (WHERE state = 'due')), 0)::float8 AS oldest_seconds
FROM sync_states WHERE state IN ('due', 'unknown', 'in_flight', 'dead');

-- name: unsettled_leads
-- Two halves, each from an index of its own.
SELECT connection_id, state, count(*) AS leads FROM sync_states
WHERE state IN ('due', 'in_flight', 'unknown') GROUP BY connection_id, state
UNION ALL
SELECT connection_id, state, count(*) FROM sync_states WHERE state = 'dead' GROUP BY connection_id, state;

-- name: resting_connections
SELECT id, vendor, (status <> 'active' OR coalesce(paused_until > now(), false))::int AS resting FROM connections WHERE deleted_at IS NULL;
