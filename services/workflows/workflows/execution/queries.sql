-- name: claim_runs
WITH due AS (
    SELECT workspace_id, id FROM runs
    WHERE state IN ('queued', 'running', 'retrying', 'cancelling') AND due_at <= now()
    ORDER BY due_at LIMIT $1
    FOR UPDATE SKIP LOCKED
)
UPDATE runs r
SET state = CASE r.state WHEN 'cancelling' THEN 'cancelling' ELSE 'running' END,
    lost_leases = r.lost_leases + CASE WHEN r.lease_token IS NULL THEN 0 ELSE 1 END,
    lease_token = $2,
    due_at = now() + interval '1 second' * $3::float8,
    started_at = coalesce(r.started_at, now())
FROM due
WHERE r.workspace_id = due.workspace_id AND r.id = due.id
RETURNING r.workspace_id, r.id, r.workflow_id, r.version, r.lead_id, r.state, r.step_id, r.iteration, r.generation,
          r.trigger, r.chain, r.request_id, r.traceparent, r.wake, r.lost_leases, r.started_at;

-- name: renew_lease
UPDATE runs SET due_at = now() + interval '1 second' * $4::float8
WHERE workspace_id = $1 AND id = $2 AND lease_token = $3
RETURNING id;

-- name: lock_claimed
SELECT state, events FROM runs WHERE workspace_id = $1 AND id = $2 AND lease_token = $3 FOR NO KEY UPDATE;

-- name: keep_claimed
UPDATE runs SET step_id = $4, lost_leases = CASE WHEN step_id = $4 THEN lost_leases ELSE 0 END,
                due_at = now() + interval '1 second' * $5::float8
WHERE workspace_id = $1 AND id = $2 AND lease_token = $3;

-- name: leave_claimed
UPDATE runs
SET state = $4, step_id = $5, error = $6, waiting_for = $7, wake = CASE WHEN $4 = 'waiting' THEN NULL ELSE wake END,
    lost_leases = 0, lease_token = NULL,
    due_at = coalesce($8::timestamptz, now() + interval '1 second' * $9::float8),
    finished_at = CASE WHEN $4 IN ('completed', 'failed', 'cancelled') THEN now() END
WHERE workspace_id = $1 AND id = $2 AND lease_token = $3
RETURNING due_at;

-- name: count_event
UPDATE runs SET events = events + 1 WHERE workspace_id = $1 AND id = $2 RETURNING events;

-- name: save_step
INSERT INTO run_steps AS s (workspace_id, run_id, iteration, step_id, generation, type, state, input, output, error, attempts,
                            place, due_at, started_at, finished_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
ON CONFLICT (workspace_id, run_id, iteration, step_id) DO UPDATE
    SET generation = excluded.generation, type = excluded.type, state = excluded.state, input = excluded.input,
        output = excluded.output, error = excluded.error, attempts = excluded.attempts, due_at = excluded.due_at,
        started_at = excluded.started_at, finished_at = excluded.finished_at, announced = false;

-- name: set_step_due
UPDATE run_steps SET due_at = $5 WHERE workspace_id = $1 AND run_id = $2 AND iteration = $3 AND step_id = $4;

-- name: save_attempt
INSERT INTO step_attempts AS a (workspace_id, run_id, iteration, step_id, generation, attempt, purpose, state, status, error,
                                started_at, finished_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
ON CONFLICT (workspace_id, run_id, iteration, step_id, generation, attempt) DO UPDATE
    SET state = excluded.state, status = excluded.status, error = excluded.error, finished_at = excluded.finished_at;

-- name: announce_steps
UPDATE run_steps SET announced = true
WHERE workspace_id = $1 AND run_id = $2 AND finished_at IS NOT NULL AND NOT announced
RETURNING step_id, type, state, attempts, started_at, finished_at, error, iteration, generation, place;

-- name: load_steps
SELECT step_id, generation, type, state, input, output, error, attempts, place, due_at, started_at, finished_at
FROM run_steps WHERE workspace_id = $1 AND run_id = $2 AND iteration = $3 ORDER BY place;

-- name: load_attempts
SELECT attempt, purpose, state, status, error, started_at, finished_at
FROM step_attempts
WHERE workspace_id = $1 AND run_id = $2 AND iteration = $3 AND step_id = $4 AND generation = $5
ORDER BY attempt;

-- name: lock_lead
SELECT workspace_id, lead_id, version, deleted, lead FROM lead_view WHERE workspace_id = $1 AND lead_id = $2 FOR UPDATE;

-- name: take_turn
INSERT INTO rotations AS r (workspace_id, workflow_id, step_id, last_user_id) VALUES ($1, $2, $3, '')
ON CONFLICT (workspace_id, workflow_id, step_id) DO UPDATE SET last_user_id = r.last_user_id
RETURNING last_user_id;

-- name: end_turn
UPDATE rotations SET last_user_id = $4 WHERE workspace_id = $1 AND workflow_id = $2 AND step_id = $3;

-- name: active_users
SELECT id FROM users WHERE workspace_id = $1 AND id = ANY($2::text[]) AND active;

-- name: release_timers
WITH waiting AS (SELECT DISTINCT workspace_id FROM runs WHERE state = 'waiting' AND due_at <= now()),
due AS (
    SELECT r.workspace_id, r.id, r.late
    FROM (SELECT workspace_id FROM waiting ORDER BY random()) w
    CROSS JOIN LATERAL (
        SELECT workspace_id, id, extract(epoch FROM now() - due_at)::float8 AS late
        FROM runs
        WHERE workspace_id = w.workspace_id AND state = 'waiting' AND due_at <= now()
        ORDER BY due_at LIMIT $2
        FOR UPDATE SKIP LOCKED
    ) r
    LIMIT $1
)
UPDATE runs t
SET state = 'queued', waiting_for = NULL,
    due_at = now() + interval '1 second' * CASE WHEN due.late > $3::float8 THEN random() * least(due.late, $4::float8) ELSE 0 END
FROM due
WHERE t.workspace_id = due.workspace_id AND t.id = due.id
RETURNING t.id;

-- name: work_ahead
SELECT count(*) FILTER (WHERE state IN ('queued', 'retrying') AND due_at <= now()) AS due,
       coalesce(extract(epoch FROM now() - min(due_at) FILTER (WHERE state IN ('queued', 'retrying'))), 0)::float8 AS oldest_seconds
FROM runs WHERE state IN ('queued', 'retrying', 'running', 'cancelling') AND due_at <= now();

-- name: runs_now
-- Two halves, each from an index of its own.
SELECT state, count(*) AS runs, 0 AS late, 0::float8 AS late_seconds
FROM runs WHERE state IN ('queued', 'retrying', 'running', 'cancelling') GROUP BY state
UNION ALL
SELECT 'waiting', count(*), count(*) FILTER (WHERE due_at <= now()), coalesce(greatest(extract(epoch FROM now() - min(due_at)), 0), 0)::float8
FROM runs WHERE state = 'waiting' AND due_at IS NOT NULL;
