-- Leads. Every statement names the workspace first; those that write carry the idempotency key and the event in them.

-- name: create_leads
-- Many leads at once, each with its key and its event, or none of those three. A lead whose dedupe key is taken or whose
-- owner is not an active user is left out. The key has no ON CONFLICT: a key that is taken undoes the whole statement.
-- The orders keep two processes from waiting for each other crosswise.
WITH input AS (
    SELECT * FROM unnest(
        $1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[],
        $10::text[], $11::smallint[], $12::text[], $13::jsonb[], $14::jsonb[], $15::jsonb[], $16::text[], $17::timestamptz[],
        $18::text[], $19::text[], $20::bytea[], $21::interval[], $22::jsonb[], $23::bytea[], $24::text[], $25::bytea[]
    ) AS t (
        workspace_id, id, email, phone, first_name, last_name, company, title, source,
        stage, score, owner_id, tags, custom, consent, dedupe_key, created_at,
        principal, key, fingerprint, lifetime, headers, answer, event_id, event
    )
), created AS (
    INSERT INTO leads (
        workspace_id, id, email, phone, first_name, last_name, company, title, source,
        stage, score, owner_id, tags, custom, consent, dedupe_key, created_at, updated_at, version, revision
    )
    SELECT
        workspace_id, id, email, phone, first_name, last_name, company, title, source,
        stage, score, owner_id, tags, custom, consent, dedupe_key, created_at, created_at, 1, 1
    FROM input
    WHERE owner_id IS NULL OR EXISTS (
        SELECT 1 FROM users
        WHERE users.workspace_id = input.workspace_id AND users.id = input.owner_id AND users.active
    )
    ORDER BY workspace_id, dedupe_key
    ON CONFLICT (workspace_id, dedupe_key) WHERE deleted_at IS NULL DO NOTHING
    RETURNING workspace_id, id
), keyed AS (
    INSERT INTO idempotency_keys (workspace_id, principal, key, fingerprint, status, headers, body, expires_at)
    SELECT workspace_id, principal, key, fingerprint, 201, headers, answer, now() + lifetime
    FROM input JOIN created USING (workspace_id, id)
    ORDER BY workspace_id, principal, key
), announced AS (
    INSERT INTO outbox (event_id, workspace_id, type, subject, subject_version, body)
    SELECT event_id, workspace_id, 'lead.created', id, 1, event
    FROM input JOIN created USING (workspace_id, id)
)
SELECT id FROM created;

-- name: change_lead
-- One lead from revision $3 to what follows, with its key and its event; nothing if it has another revision by now.
-- $27 is the owner to check, or NULL if it stays who it was.
WITH changed AS (
    UPDATE leads SET
        email = $4, phone = $5, first_name = $6, last_name = $7, company = $8, title = $9, source = $10,
        stage = $11, score = $12, owner_id = $13, tags = $14, custom = $15, consent = $16, dedupe_key = $17,
        version = $18, revision = $19, updated_at = $20, deleted_at = $21
    WHERE workspace_id = $1 AND id = $2 AND revision = $3
        AND ($27::text IS NULL OR EXISTS (SELECT 1 FROM users WHERE users.workspace_id = $1 AND users.id = $27 AND active))
    RETURNING 1
), keyed AS (
    INSERT INTO idempotency_keys (workspace_id, principal, key, fingerprint, status, headers, body, expires_at)
    SELECT $1, $22::text, $23::text, $24::bytea, $25::smallint, $26::jsonb, $28::bytea, now() + $29::interval FROM changed
), announced AS (
    INSERT INTO outbox (event_id, workspace_id, type, subject, subject_version, body)
    SELECT $30::text, $1, $31::text, $2, $18, $32::bytea FROM changed
)
SELECT
    EXISTS (SELECT 1 FROM changed) AS changed,
    $27::text IS NULL OR EXISTS (
        SELECT 1 FROM users WHERE users.workspace_id = $1 AND users.id = $27 AND active
    ) AS owner_is_active;

-- name: keep_answer
-- The answer to a write that changed nothing.
INSERT INTO idempotency_keys (workspace_id, principal, key, fingerprint, status, headers, body, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, now() + $8::interval);

-- name: drop_expired_key
DELETE FROM idempotency_keys WHERE workspace_id = $1 AND principal = $2 AND key = $3 AND expires_at <= now();

-- name: read_for_write
-- What a write must know before it decides: the answer this key has got already, and the lead as it is. Always one row.
SELECT
    stored.fingerprint, stored.status, stored.headers, stored.body,
    leads.id, leads.email, leads.phone, leads.first_name, leads.last_name, leads.company, leads.title, leads.source,
    leads.stage, leads.score, leads.owner_id, leads.tags, leads.custom, leads.consent, leads.external_ids, leads.dedupe_key,
    leads.version, leads.revision, leads.created_at, leads.updated_at, leads.deleted_at
FROM (VALUES (1)) AS always
LEFT JOIN idempotency_keys AS stored
    ON stored.workspace_id = $1 AND stored.principal = $2 AND stored.key = $3 AND stored.expires_at > now()
LEFT JOIN leads ON leads.workspace_id = $1 AND leads.id = $4;

-- name: read_lead
-- Deleted ones too.
SELECT
    id, email, phone, first_name, last_name, company, title, source, stage, score, owner_id, tags, custom, consent,
    external_ids, dedupe_key, version, revision, created_at, updated_at, deleted_at
FROM leads WHERE workspace_id = $1 AND id = $2;

-- name: find_live_lead
SELECT id FROM leads WHERE workspace_id = $1 AND dedupe_key = $2 AND deleted_at IS NULL;

-- name: owner_is_active
SELECT EXISTS (SELECT 1 FROM users WHERE workspace_id = $1 AND id = $2 AND active);

-- name: read_region
SELECT default_region FROM workspace_settings WHERE workspace_id = $1;

-- name: lock_region
-- The region that holds now, and a row to hold on to: $2 is the region without one.
INSERT INTO workspace_settings (workspace_id, default_region) VALUES ($1, $2)
ON CONFLICT (workspace_id) DO UPDATE SET default_region = workspace_settings.default_region
RETURNING default_region;

-- name: set_region
UPDATE workspace_settings SET default_region = $2 WHERE workspace_id = $1;

-- name: lead_exists
SELECT EXISTS (SELECT 1 FROM leads WHERE workspace_id = $1 AND id = $2);

-- name: read_timeline
SELECT at, event_id, position, entry FROM timeline
WHERE workspace_id = $1 AND lead_id = $2 AND (at, event_id, position) > ($3, $4, $5)
ORDER BY at, event_id, position LIMIT $6;

-- name: write_timeline
INSERT INTO timeline (workspace_id, lead_id, at, event_id, position, kind, entry)
SELECT * FROM unnest(
    $1::text[], $2::text[], $3::timestamptz[], $4::text[], $5::smallint[], $6::text[], $7::json[]
)
ON CONFLICT DO NOTHING;

-- name: known_leads
SELECT leads.workspace_id, leads.id
FROM unnest($1::text[], $2::text[]) AS wanted (workspace_id, id)
JOIN leads USING (workspace_id, id);

-- name: lock_leads
-- Two connections' ids for one lead must not be gathered at once, each without the other.
SELECT 1 FROM leads JOIN unnest($1::text[], $2::text[]) AS wanted (workspace_id, id) USING (workspace_id, id)
ORDER BY leads.workspace_id, leads.id FOR NO KEY UPDATE OF leads;

-- name: copy_users
INSERT INTO users (workspace_id, id, name, active, version)
SELECT DISTINCT ON (workspace_id, id) workspace_id, id, name, active, version
FROM unnest($1::text[], $2::text[], $3::text[], $4::boolean[], $5::bigint[]) AS t (workspace_id, id, name, active, version)
ORDER BY workspace_id, id, version DESC
ON CONFLICT (workspace_id, id) DO UPDATE
    SET name = excluded.name, active = excluded.active, version = excluded.version
    WHERE users.version < excluded.version;

-- name: copy_external_ids
INSERT INTO external_ids (workspace_id, lead_id, connection_id, external_id, version)
SELECT DISTINCT ON (workspace_id, lead_id, connection_id) workspace_id, lead_id, connection_id, external_id, version
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[])
    AS t (workspace_id, lead_id, connection_id, external_id, version)
ORDER BY workspace_id, lead_id, connection_id, version DESC
ON CONFLICT (workspace_id, lead_id, connection_id) DO UPDATE
    SET external_id = excluded.external_id, version = excluded.version
    WHERE external_ids.version < excluded.version
RETURNING workspace_id, lead_id;

-- name: show_external_ids
-- A projection: what is shown changes, so `revision` grows; the lead does not, so `version` and `updated_at` stay.
UPDATE leads SET external_ids = known.ids, revision = revision + 1
FROM (
    SELECT wanted.workspace_id, wanted.id,
        coalesce(jsonb_object_agg(external_ids.connection_id, external_ids.external_id)
            FILTER (WHERE external_ids.external_id IS NOT NULL), '{}') AS ids
    FROM unnest($1::text[], $2::text[]) AS wanted (workspace_id, id)
    LEFT JOIN external_ids ON external_ids.workspace_id = wanted.workspace_id AND external_ids.lead_id = wanted.id
    GROUP BY wanted.workspace_id, wanted.id
) AS known
WHERE leads.workspace_id = known.workspace_id AND leads.id = known.id AND leads.external_ids IS DISTINCT FROM known.ids
RETURNING leads.workspace_id, leads.id;

-- name: plant_seed
INSERT INTO seeds (name) VALUES ($1) ON CONFLICT DO NOTHING RETURNING name;

-- name: insert_seed_lead
-- Left out if the workspace has a lead of this id or e-mail already.
INSERT INTO leads (
    workspace_id, id, email, phone, first_name, last_name, company, title, source,
    stage, score, owner_id, tags, custom, consent, dedupe_key, created_at, updated_at, version, revision
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $17, 1, 1)
ON CONFLICT DO NOTHING
RETURNING id;

-- name: release_events
UPDATE outbox SET claimed_until = now() WHERE event_id = ANY ($1::text[]);
