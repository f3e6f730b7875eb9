-- One lead's way through one version of a workflow. workflows/engine/run.py draws the states.
CREATE TABLE runs (
    workspace_id  text NOT NULL,
    id            text NOT NULL,
    workflow_id   text NOT NULL,
    version       integer NOT NULL,
    lead_id       text NOT NULL,
    state         text NOT NULL CHECK (state IN ('queued', 'running', 'waiting', 'retrying', 'cancelling',
                      'needs_attention', 'suspended', 'completed', 'failed', 'cancelled')),
    error         text,
    -- The step the run stands at.
    step_id       text NOT NULL,
    -- Passes through the definition; retries from the start begin another.
    iteration     integer NOT NULL DEFAULT 0,
    -- Grows when an operator retries a step whose failure is known: its outside call gets a new key.
    generation    integer NOT NULL DEFAULT 0,
    trigger       jsonb NOT NULL,
    origin        text NOT NULL,
    chain         text[] NOT NULL,
    request_id    text,
    traceparent   text,
    -- The type of event a waiting run waits for, and the event that came.
    waiting_for   text,
    wake          jsonb,
    -- When a worker must look at the run next; while one works on it: when its lease ends.
    due_at        timestamptz,
    lease_token   text,
    -- Leases that ended by themselves since the run last got on.
    lost_leases   integer NOT NULL DEFAULT 0,
    -- Events announced so far: their subjectversion.
    events        integer NOT NULL DEFAULT 0,
    created_at    timestamptz NOT NULL DEFAULT now(),
    started_at    timestamptz,
    finished_at   timestamptz,
    PRIMARY KEY (workspace_id, id),
    FOREIGN KEY (workspace_id, workflow_id, version) REFERENCES workflow_versions (workspace_id, workflow_id, version),
    CHECK (state = 'running' OR state = 'cancelling' OR lease_token IS NULL),
    CHECK (state <> 'running' OR lease_token IS NOT NULL),
    CHECK (due_at IS NOT NULL OR state NOT IN ('queued', 'running', 'retrying', 'cancelling')),
    CHECK (waiting_for IS NULL OR state = 'waiting'),
    CHECK ((finished_at IS NOT NULL) = (state IN ('completed', 'failed', 'cancelled'))),
    CHECK (error IS NOT NULL OR state NOT IN ('failed', 'suspended', 'needs_attention'))
);
CREATE INDEX runs_due ON runs (due_at) WHERE state IN ('queued', 'running', 'retrying', 'cancelling');
CREATE INDEX runs_timers ON runs (workspace_id, due_at) WHERE state = 'waiting' AND due_at IS NOT NULL;
CREATE INDEX runs_waiting ON runs (workspace_id, lead_id, waiting_for) WHERE waiting_for IS NOT NULL;
CREATE INDEX runs_created ON runs (workspace_id, created_at, id);
CREATE INDEX runs_of_workflow ON runs (workspace_id, workflow_id, created_at, id);
CREATE INDEX runs_by_state ON runs (workspace_id, workflow_id, state);
CREATE INDEX runs_of_lead ON runs (workspace_id, workflow_id, lead_id, created_at);
CREATE INDEX runs_finished ON runs (finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX runs_suspended ON runs (created_at) WHERE state = 'suspended';

CREATE FUNCTION check_run_state() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state IN ('queued', 'suspended') THEN
            RETURN NEW;
        END IF;
        RAISE EXCEPTION 'a run cannot begin as %', NEW.state USING ERRCODE = 'check_violation';
    END IF;
    IF NEW.state = ANY (CASE OLD.state
        WHEN 'queued' THEN ARRAY['running', 'cancelling']
        WHEN 'running' THEN ARRAY['queued', 'waiting', 'retrying', 'cancelling', 'needs_attention', 'completed', 'failed']
        WHEN 'waiting' THEN ARRAY['queued', 'cancelling']
        WHEN 'retrying' THEN ARRAY['running', 'cancelling']
        WHEN 'cancelling' THEN ARRAY['cancelled']
        WHEN 'needs_attention' THEN ARRAY['queued', 'cancelling']
        WHEN 'suspended' THEN ARRAY['queued', 'cancelling']
        WHEN 'failed' THEN ARRAY['queued']
        WHEN 'cancelled' THEN ARRAY['queued']
        ELSE ARRAY[]::text[]
    END) THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'a run cannot go from % to %', OLD.state, NEW.state USING ERRCODE = 'check_violation';
END
$$;
CREATE TRIGGER runs_first_state BEFORE INSERT ON runs FOR EACH ROW EXECUTE FUNCTION check_run_state();
CREATE TRIGGER runs_next_state BEFORE UPDATE OF state ON runs FOR EACH ROW
    WHEN (OLD.state IS DISTINCT FROM NEW.state) EXECUTE FUNCTION check_run_state();

-- A step of a run, once per pass. `input` is what its outside call sends: a repetition within a generation sends the same.
CREATE TABLE run_steps (
    workspace_id text NOT NULL,
    run_id       text NOT NULL,
    iteration    integer NOT NULL,
    step_id      text NOT NULL,
    generation   integer NOT NULL,
    type         text NOT NULL,
    state        text NOT NULL CHECK (state IN ('running', 'waiting', 'retrying', 'succeeded', 'failed', 'unknown', 'cancelled')),
    input        jsonb,
    output       jsonb,
    error        text,
    attempts     integer NOT NULL DEFAULT 0,
    -- Order within the pass.
    place        integer NOT NULL,
    due_at       timestamptz,
    started_at   timestamptz NOT NULL,
    finished_at  timestamptz,
    -- True once an event has told how the step ended.
    announced    boolean NOT NULL DEFAULT false,
    PRIMARY KEY (workspace_id, run_id, iteration, step_id),
    FOREIGN KEY (workspace_id, run_id) REFERENCES runs (workspace_id, id) ON DELETE CASCADE,
    CHECK ((finished_at IS NOT NULL) = (state IN ('succeeded', 'failed', 'unknown', 'cancelled')))
);

-- One outside call: committed as `calling` before it is made, its result after it.
CREATE TABLE step_attempts (
    workspace_id text NOT NULL,
    run_id       text NOT NULL,
    iteration    integer NOT NULL,
    step_id      text NOT NULL,
    generation   integer NOT NULL,
    attempt      integer NOT NULL CHECK (attempt >= 1),
    purpose      text NOT NULL CHECK (purpose IN ('call', 'verify')),
    state        text NOT NULL CHECK (state IN ('calling', 'succeeded', 'failed', 'unknown')),
    status       integer,
    error        text,
    started_at   timestamptz NOT NULL,
    finished_at  timestamptz,
    PRIMARY KEY (workspace_id, run_id, iteration, step_id, generation, attempt),
    FOREIGN KEY (workspace_id, run_id, iteration, step_id)
        REFERENCES run_steps (workspace_id, run_id, iteration, step_id) ON DELETE CASCADE,
    CHECK ((finished_at IS NULL) = (state = 'calling'))
);
