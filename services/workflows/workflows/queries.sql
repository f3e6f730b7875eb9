-- name: insert_workflow
INSERT INTO workflows (workspace_id, id, name, version, trigger_event)
VALUES ($1, $2, $3, 1, $4)
ON CONFLICT (workspace_id, lower(name)) WHERE archived_at IS NULL DO NOTHING
RETURNING created_at;

-- name: workflow_named
SELECT id FROM workflows WHERE workspace_id = $1 AND lower(name) = lower($2) AND archived_at IS NULL;

-- name: insert_version
INSERT INTO workflow_versions (workspace_id, workflow_id, version, definition, created_by, created_at)
VALUES ($1, $2, $3, $4, $5, $6);

-- name: insert_secrets
INSERT INTO secrets (workspace_id, workflow_id, id, sealed)
SELECT $1, $2, * FROM unnest($3::text[], $4::text[]);

-- name: known_secrets
SELECT id FROM secrets WHERE workspace_id = $1 AND workflow_id = $2 AND id = ANY($3::text[]);

-- name: known_users
SELECT id, active FROM users WHERE workspace_id = $1 AND id = ANY($2::text[]);

-- name: read_workflow
SELECT w.workspace_id, w.id, w.version, v.definition, w.created_at, w.updated_at, w.archived_at
FROM workflows w
JOIN workflow_versions v ON (v.workspace_id, v.workflow_id, v.version) = (w.workspace_id, w.id, w.version)
WHERE w.workspace_id = $1 AND w.id = $2;

-- name: lock_workflow
SELECT id FROM workflows WHERE workspace_id = $1 AND id = $2 FOR NO KEY UPDATE;

-- name: list_workflows
SELECT w.workspace_id, w.id, w.version, v.definition, w.created_at, w.updated_at, w.archived_at
FROM workflows w
JOIN workflow_versions v ON (v.workspace_id, v.workflow_id, v.version) = (w.workspace_id, w.id, w.version)
WHERE w.workspace_id = $1
  AND (w.archived_at IS NOT NULL) = $2
  AND ($3::text IS NULL OR w.trigger_event = $3)
  AND ($4::text IS NULL OR strpos(lower(w.name), lower($4)) > 0)
  AND ($5::timestamptz IS NULL OR (w.created_at, w.id) < ($5, $6::text))
ORDER BY w.created_at DESC, w.id DESC
LIMIT $7;

-- name: replace_definition
UPDATE workflows SET name = $3, version = version + 1, trigger_event = $4, updated_at = now()
WHERE workspace_id = $1 AND id = $2;

-- name: archive_workflow
UPDATE workflows SET archived_at = now(), updated_at = now()
WHERE workspace_id = $1 AND id = $2 AND archived_at IS NULL;

-- name: list_versions
SELECT version, definition, created_by, created_at FROM workflow_versions
WHERE workspace_id = $1 AND workflow_id = $2 AND ($3::integer IS NULL OR version < $3)
ORDER BY version DESC
LIMIT $4;

-- name: read_version
SELECT definition FROM workflow_versions WHERE workspace_id = $1 AND workflow_id = $2 AND version = $3;

-- name: triggered_workflows
SELECT w.workspace_id, w.id, w.version, w.trigger_event
FROM workflows w
WHERE w.workspace_id = ANY($1::text[]) AND w.trigger_event = ANY($2::text[]) AND w.archived_at IS NULL
ORDER BY w.created_at, w.id;

-- name: keep_from_archive
-- Whoever starts runs of a workflow holds this shared, whoever archives it alone: neither waits for ever, as for a row lock.
-- Locks are taken in this order: lead, workflow, run.
SELECT pg_advisory_xact_lock_shared(727003, hashtext(workspace_id || '/' || id))
FROM unnest($1::text[], $2::text[]) AS wanted (workspace_id, id);

-- name: wait_for_starts
SELECT pg_advisory_xact_lock(727003, hashtext($1 || '/' || $2));

-- name: live_workflows
SELECT workspace_id, id
FROM workflows JOIN unnest($1::text[], $2::text[]) AS wanted (workspace_id, id) USING (workspace_id, id)
WHERE archived_at IS NULL;

-- name: sealed_secrets
SELECT id, sealed FROM secrets WHERE workspace_id = $1 AND id = ANY($2::text[]);

-- name: secrets_after
SELECT workspace_id, id, sealed FROM secrets WHERE (workspace_id, id) > ($1, $2) ORDER BY workspace_id, id LIMIT 200;

-- name: reseal_secret
UPDATE secrets SET sealed = $4 WHERE workspace_id = $1 AND id = $2 AND sealed = $3;

-- name: copy_users
INSERT INTO users AS u (workspace_id, id, name, active, version)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::boolean[], $5::bigint[])
ON CONFLICT (workspace_id, id) DO UPDATE
    SET name = excluded.name, active = excluded.active, version = excluded.version
    WHERE u.version < excluded.version;

-- name: lock_leads
SELECT 1 FROM lead_view v
JOIN unnest($1::text[], $2::text[]) AS wanted (workspace_id, lead_id)
  ON v.workspace_id = wanted.workspace_id AND v.lead_id = wanted.lead_id
ORDER BY v.workspace_id, v.lead_id
FOR UPDATE OF v;

-- name: copy_leads
INSERT INTO lead_view AS v (workspace_id, lead_id, version, deleted, lead)
SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::boolean[], $5::jsonb[])
ON CONFLICT (workspace_id, lead_id) DO UPDATE
    SET version = excluded.version, deleted = excluded.deleted, lead = excluded.lead
    WHERE v.version < excluded.version;

-- name: copy_crm
INSERT INTO crm_view AS c (workspace_id, lead_id, connection_id, version, type, data)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::jsonb[])
ON CONFLICT (workspace_id, lead_id, connection_id) DO UPDATE
    SET version = excluded.version, type = excluded.type, data = excluded.data
    WHERE c.version < excluded.version;

-- name: read_lead
SELECT workspace_id, lead_id, version, deleted, lead FROM lead_view WHERE workspace_id = $1 AND lead_id = $2;

-- name: read_clock
SELECT now();

-- name: read_crm
SELECT type, data FROM crm_view WHERE workspace_id = $1 AND lead_id = $2 ORDER BY connection_id;
