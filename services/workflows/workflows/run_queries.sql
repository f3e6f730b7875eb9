-- name: insert_run
INSERT INTO runs (workspace_id, id, workflow_id, version, lead_id, state, error, step_id, trigger, origin, chain,
                  request_id, traceparent, due_at, events)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13,
        CASE WHEN $6 = 'queued' THEN now() END, CASE WHEN $6 = 'suspended' THEN 1 ELSE 0 END);

-- name: count_recent_starts
SELECT wanted.workspace_id, wanted.workflow_id, wanted.lead_id,
       (SELECT count(*) FROM runs r
        WHERE r.workspace_id = wanted.workspace_id AND r.workflow_id = wanted.workflow_id
          AND r.lead_id = wanted.lead_id AND r.created_at > now() - interval '1 hour' AND r.state <> 'suspended') AS starts
FROM unnest($1::text[], $2::text[], $3::text[]) AS wanted (workspace_id, workflow_id, lead_id);

-- name: waiting_runs
SELECT r.workspace_id, r.id, r.workflow_id, r.version, r.lead_id, r.step_id, r.iteration, r.trigger, r.waiting_for
FROM runs r
JOIN unnest($1::text[], $2::text[], $3::text[]) AS wanted (workspace_id, lead_id, event)
  ON r.workspace_id = wanted.workspace_id AND r.lead_id = wanted.lead_id AND r.waiting_for = wanted.event
WHERE r.waiting_for IS NOT NULL;

-- name: wake_run
UPDATE runs SET state = 'queued', waiting_for = NULL, wake = $3, due_at = now()
WHERE workspace_id = $1 AND id = $2 AND state = 'waiting' AND waiting_for IS NOT NULL
RETURNING id;

-- name: look_again
WITH woken AS (
    UPDATE runs SET state = 'queued', waiting_for = NULL, due_at = now()
    WHERE workspace_id = $1 AND id = $2 AND state = 'waiting' AND waiting_for IS NOT NULL
    RETURNING workspace_id, id, iteration, step_id
)
UPDATE run_steps s SET state = 'running', due_at = NULL
FROM woken w
WHERE (s.workspace_id, s.run_id, s.iteration, s.step_id) = (w.workspace_id, w.id, w.iteration, w.step_id);

-- name: read_run
SELECT r.workspace_id, r.id, r.workflow_id, v.definition ->> 'name' AS workflow_name, r.version, r.lead_id, r.state,
       r.error, r.step_id, r.iteration, r.generation, r.trigger, r.origin, r.chain, r.waiting_for, r.due_at, r.created_at,
       r.started_at, r.finished_at
FROM runs r
JOIN workflow_versions v ON (v.workspace_id, v.workflow_id, v.version) = (r.workspace_id, r.workflow_id, r.version)
WHERE r.workspace_id = $1 AND r.id = $2;

-- name: lock_run
SELECT id FROM runs WHERE workspace_id = $1 AND id = $2 FOR NO KEY UPDATE;

-- name: list_runs
SELECT r.workspace_id, r.id, r.workflow_id, v.definition ->> 'name' AS workflow_name, r.version, r.lead_id, r.state,
       r.error, r.step_id, r.iteration, r.generation, r.trigger, r.origin, r.chain, r.waiting_for, r.due_at, r.created_at,
       r.started_at, r.finished_at
FROM runs r
JOIN workflow_versions v ON (v.workspace_id, v.workflow_id, v.version) = (r.workspace_id, r.workflow_id, r.version)
WHERE r.workspace_id = $1
  AND ($2::text IS NULL OR r.workflow_id = $2)
  AND ($3::text IS NULL OR r.state = $3)
  AND ($4::text IS NULL OR r.lead_id = $4)
  AND ($5::timestamptz IS NULL OR (r.created_at, r.id) < ($5, $6::text))
ORDER BY r.created_at DESC, r.id DESC
LIMIT $7;

-- name: read_steps
SELECT step_id, iteration, generation, type, state, input, output, error, attempts, due_at, started_at, finished_at
FROM run_steps WHERE workspace_id = $1 AND run_id = $2 ORDER BY iteration, place;

-- name: read_attempts
SELECT step_id, iteration, generation, attempt, purpose, state, status, error, started_at, finished_at
FROM step_attempts WHERE workspace_id = $1 AND run_id = $2 ORDER BY iteration, step_id, generation, attempt;

-- name: read_outputs
SELECT step_id, output FROM run_steps
WHERE workspace_id = $1 AND run_id = $2 AND iteration = $3 AND state = 'succeeded';

-- name: present_step
SELECT state, type FROM run_steps WHERE workspace_id = $1 AND run_id = $2 AND iteration = $3 AND step_id = $4 AND generation = $5;

-- name: count_by_state
SELECT state, count(*) AS runs FROM runs WHERE workspace_id = $1 AND workflow_id = $2 GROUP BY state;

-- name: count_lately
SELECT count(*) FILTER (WHERE started_at > now() - interval '1 hour') AS started_hour,
       count(*) FILTER (WHERE started_at > now() - interval '1 day') AS started_day,
       count(*) FILTER (WHERE state = 'completed' AND finished_at > now() - interval '1 hour') AS completed_hour,
       count(*) FILTER (WHERE state = 'completed' AND finished_at > now() - interval '1 day') AS completed_day,
       count(*) FILTER (WHERE state = 'failed' AND finished_at > now() - interval '1 hour') AS failed_hour,
       count(*) FILTER (WHERE state = 'failed' AND finished_at > now() - interval '1 day') AS failed_day
FROM runs
WHERE workspace_id = $1 AND workflow_id = $2
  AND (started_at > now() - interval '1 day' OR finished_at > now() - interval '1 day');

-- name: cancel_run
UPDATE runs SET state = 'cancelling', waiting_for = NULL,
                due_at = CASE WHEN state = 'running' THEN due_at ELSE now() END
WHERE workspace_id = $1 AND id = $2;

-- name: cancel_open_runs
UPDATE runs SET state = 'cancelling', waiting_for = NULL,
                due_at = CASE WHEN state = 'running' THEN due_at ELSE now() END
WHERE workspace_id = $1 AND workflow_id = $2
  AND state IN ('queued', 'running', 'waiting', 'retrying', 'needs_attention', 'suspended')
RETURNING id;

-- name: requeue_run
UPDATE runs SET state = 'queued', version = $3, step_id = $4, iteration = $5, generation = $6, error = NULL, wake = NULL,
                lost_leases = 0, finished_at = NULL, due_at = now()
WHERE workspace_id = $1 AND id = $2;

-- name: ring
SELECT pg_notify('workflow_runs', '');
