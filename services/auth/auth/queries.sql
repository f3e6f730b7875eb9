-- Workspaces and users ------------------------------------------------------------------------------------------------

-- name: insert_workspace
INSERT INTO workspaces (id, name) VALUES ($1, $2);

-- name: workspace_exists
SELECT EXISTS (SELECT FROM workspaces WHERE id = $1);

-- name: lock_workspace
SELECT id FROM workspaces WHERE id = $1 FOR NO KEY UPDATE;

-- name: insert_user
INSERT INTO users (workspace_id, id, email, name, role, password_hash)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (email) DO NOTHING
RETURNING workspace_id, id, email, name, role, active, version, password_version, created_at, updated_at;

-- name: email_holder
SELECT id FROM users WHERE email = $2 AND workspace_id = $1;

-- name: read_user
SELECT workspace_id, id, email, name, role, active, version, password_version, created_at, updated_at
FROM users WHERE workspace_id = $1 AND id = $2;

-- name: lock_user
SELECT workspace_id, id, email, name, role, active, version, password_version, created_at, updated_at
FROM users WHERE workspace_id = $1 AND id = $2
FOR NO KEY UPDATE;

-- name: list_users
SELECT workspace_id, id, email, name, role, active, version, password_version, created_at, updated_at
FROM users
WHERE workspace_id = $1
  AND ($2::text IS NULL OR role = $2)
  AND ($3::boolean IS NULL OR active = $3)
  AND ($4::text IS NULL OR strpos(lower(name), lower($4)) > 0 OR strpos(email, lower($4)) > 0)
  AND ($5::timestamptz IS NULL OR (created_at, id) > ($5, $6))
ORDER BY created_at, id
LIMIT $7;

-- name: update_user
UPDATE users
SET name = $3, role = $4, active = $5, version = version + 1, updated_at = date_trunc('milliseconds', now())
WHERE workspace_id = $1 AND id = $2
RETURNING workspace_id, id, email, name, role, active, version, password_version, created_at, updated_at;

-- name: other_administrators
SELECT EXISTS (SELECT FROM users WHERE workspace_id = $1 AND id <> $2 AND role = 'admin' AND active);

-- name: set_password
UPDATE users
SET password_hash = $3, password_version = password_version + 1
WHERE workspace_id = $1 AND id = $2
RETURNING id;

-- name: replace_hash
UPDATE users SET password_hash = $4 WHERE workspace_id = $1 AND id = $2 AND password_version = $3;

-- name: read_account
SELECT workspace_id, id, email, name, role, active, version, password_version, created_at, updated_at, password_hash
FROM users WHERE email = $1;

-- Sessions and refresh tokens -----------------------------------------------------------------------------------------

-- name: open_session
WITH owner AS (
    SELECT workspace_id, id, email, name, role, active, version, password_version, created_at, updated_at
    FROM users
    WHERE workspace_id = $1 AND id = $2 AND active AND password_version = $3
    FOR SHARE
), opened AS (
    INSERT INTO sessions (workspace_id, id, user_id, address, user_agent, expires_at)
    SELECT workspace_id, $4, id, $5, $6, now() + $7::interval FROM owner
)
SELECT workspace_id, id, email, name, role, active, version, password_version, created_at, updated_at FROM owner;

-- name: insert_refresh_token
INSERT INTO refresh_tokens (workspace_id, session_id, token_hash) VALUES ($1, $2, $3);

-- name: lock_session
SELECT s.user_id
FROM sessions s JOIN users u ON u.workspace_id = s.workspace_id AND u.id = s.user_id
WHERE s.workspace_id = $1 AND s.id = $2 AND s.ended_at IS NULL AND s.expires_at > now() AND u.active
FOR NO KEY UPDATE OF s;

-- name: rotate_refresh_token
UPDATE refresh_tokens SET rotated_at = coalesce(rotated_at, clock_timestamp())
WHERE workspace_id = $1 AND session_id = $2 AND token_hash = $3
RETURNING rotated_at + $4::interval >= clock_timestamp() AS accepted;

-- name: prolong_session
UPDATE sessions
SET last_used_at = date_trunc('milliseconds', now()), expires_at = now() + $3::interval
WHERE workspace_id = $1 AND id = $2;

-- name: list_sessions
SELECT workspace_id, id, user_id, address, user_agent, created_at, last_used_at, expires_at
FROM sessions
WHERE workspace_id = $1 AND user_id = $2 AND ended_at IS NULL AND expires_at > now()
  AND ($3::timestamptz IS NULL OR (created_at, id) < ($3, $4))
ORDER BY created_at DESC, id DESC
LIMIT $5;

-- name: session_owner
SELECT user_id FROM sessions WHERE workspace_id = $1 AND id = $2;

-- name: end_session
UPDATE sessions SET ended_at = clock_timestamp(), end_reason = $3
WHERE workspace_id = $1 AND id = $2 AND ended_at IS NULL;

-- name: end_sessions_of_user
UPDATE sessions SET ended_at = clock_timestamp(), end_reason = $3
WHERE workspace_id = $1 AND user_id = $2 AND ended_at IS NULL
RETURNING id;

-- name: ended_sessions
SELECT id, extract(epoch FROM ended_at)::float8 + $1::float8 AS until
FROM sessions
WHERE ended_at > now() - make_interval(secs => $1::float8)
ORDER BY ended_at;

-- Failed sign-ins -----------------------------------------------------------------------------------------------------

-- name: read_login_failures
SELECT f.kind, f.level, extract(epoch FROM now() - f.last_failed_at)::float8 AS age_seconds
FROM login_failures f JOIN unnest($1::text[], $2::bytea[]) AS wanted (kind, key)
  ON f.kind = wanted.kind AND f.key = wanted.key;

-- name: count_login_failure
INSERT INTO login_failures AS f (kind, key, level)
SELECT kind, key, 1 FROM unnest($1::text[], $2::bytea[]) AS failed (kind, key) ORDER BY kind, key
ON CONFLICT (kind, key) DO UPDATE
SET level = 1 + greatest(0, f.level - extract(epoch FROM now() - f.last_failed_at)
        / ($3::float8[])[array_position($1::text[], f.kind)]),
    last_failed_at = now();

-- name: forget_login_failures
DELETE FROM login_failures f USING unnest($1::text[], $2::bytea[]) AS forgiven (kind, key)
WHERE f.kind = forgiven.kind AND f.key = forgiven.key;

-- Signing keys --------------------------------------------------------------------------------------------------------

-- name: published_keys
SELECT kid, public_key, sealed_private, activates_at <= now() AS active
FROM (
    SELECT kid, public_key, sealed_private, activates_at,
           lead(activates_at) OVER (ORDER BY activates_at, kid) AS superseded_at
    FROM signing_keys
) AS ordered
WHERE superseded_at IS NULL OR superseded_at > now() - make_interval(secs => $1::float8)
ORDER BY activates_at, kid;

-- name: lock_signing_keys
SELECT pg_advisory_xact_lock(727002);

-- name: signing_key_exists
SELECT EXISTS (SELECT FROM signing_keys);

-- name: insert_signing_key
INSERT INTO signing_keys (kid, public_key, sealed_private, activates_at)
VALUES ($1, $2, $3, now() + make_interval(secs => $4::float8));

-- name: drop_superseded_keys
DELETE FROM signing_keys WHERE kid IN (
    SELECT kid FROM (
        SELECT kid, lead(activates_at) OVER (ORDER BY activates_at, kid) AS superseded_at FROM signing_keys
    ) AS ordered
    WHERE superseded_at < now() - make_interval(secs => $1::float8)
);

-- Seed ----------------------------------------------------------------------------------------------------------------

-- name: plant_seed
INSERT INTO seeds (name) VALUES ($1) ON CONFLICT DO NOTHING RETURNING name;

-- name: seeded_user
SELECT workspace_id, id FROM users ORDER BY created_at, id LIMIT 1;

-- name: release_event
UPDATE outbox SET claimed_until = now() WHERE event_id = $1;
