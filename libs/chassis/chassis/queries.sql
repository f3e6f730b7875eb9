-- name: insert_outbox
INSERT INTO outbox (event_id, workspace_id, type, subject, subject_version, body)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bytea[]);

-- name: claim_outbox
-- ARRAY: looked for once. A plan may run what stands in IN once for each row, and each time skip what it has locked.
UPDATE outbox SET claimed_until = now() + interval '10 seconds'
WHERE event_id = ANY(ARRAY(
    SELECT event_id FROM outbox
    WHERE published_at IS NULL AND parked_at IS NULL AND claimed_until <= now()
    ORDER BY seq LIMIT $1
    FOR UPDATE SKIP LOCKED
))
RETURNING event_id, type, body, attempts;

-- name: mark_published
UPDATE outbox SET published_at = now() WHERE event_id = ANY($1::text[]);

-- name: count_refusal
WITH counted AS (
    UPDATE outbox
    SET attempts = attempts + 1,
        claimed_until = now() + interval '2 seconds' * (attempts + 1),
        parked_at = CASE WHEN attempts + 1 >= $2 THEN now() END,
        parked_reason = CASE WHEN attempts + 1 >= $2 THEN 'refused by the broker' END
    WHERE event_id = ANY($1::text[])
    RETURNING event_id, type, parked_at
)
SELECT event_id, type FROM counted WHERE parked_at IS NOT NULL;

-- name: outbox_state
SELECT count(*) FILTER (WHERE parked_at IS NULL) AS waiting,
       count(*) FILTER (WHERE parked_at IS NOT NULL) AS parked,
       coalesce(extract(epoch FROM now() - min(created_at) FILTER (WHERE parked_at IS NULL)), 0)::float8 AS oldest_seconds
FROM outbox WHERE published_at IS NULL;

-- name: take_events
INSERT INTO inbox (queue, event_id) SELECT $1, unnest($2::text[])
ON CONFLICT DO NOTHING
RETURNING event_id;

-- name: suspect_event
INSERT INTO inbox_suspects (queue, event_id, tries) VALUES ($1, $2, 1)
ON CONFLICT (queue, event_id) DO UPDATE SET tries = inbox_suspects.tries + 1, at = now()
RETURNING tries;

-- name: clear_suspect
DELETE FROM inbox_suspects WHERE queue = $1 AND event_id = $2;

-- name: insert_key
INSERT INTO idempotency_keys (workspace_id, principal, key, fingerprint, expires_at)
VALUES ($1, $2, $3, $4, now() + $5::interval)
ON CONFLICT (workspace_id, principal, key) DO UPDATE
    SET fingerprint = excluded.fingerprint, created_at = now(), expires_at = excluded.expires_at,
        status = NULL, headers = NULL, body = NULL
    WHERE idempotency_keys.expires_at <= now()
RETURNING key;

-- name: read_key
SELECT fingerprint, status, headers, body FROM idempotency_keys
WHERE workspace_id = $1 AND principal = $2 AND key = $3 AND expires_at > now();

-- name: store_answer
UPDATE idempotency_keys SET status = $4, headers = $5, body = $6
WHERE workspace_id = $1 AND principal = $2 AND key = $3;

-- name: durability
SELECT name, setting FROM pg_settings WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit');

-- name: announce_again
UPDATE outbox
SET published_at = NULL, parked_at = NULL, parked_reason = NULL, attempts = 0, claimed_until = now()
WHERE event_id IN (
    SELECT event_id FROM outbox
    WHERE seq > $1 AND created_at >= now() - interval '1 hour' * $2
      AND (published_at IS NOT NULL OR ($3 AND parked_at IS NOT NULL))
    ORDER BY seq LIMIT $4
)
RETURNING seq;
