-- Workflows and their versions. A version is never changed; a run keeps the one it started on.
CREATE TABLE workflows (
    workspace_id  text NOT NULL,
    id            text NOT NULL,
    name          text NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    version       integer NOT NULL CHECK (version >= 1),
    trigger_event text,
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now(),
    archived_at   timestamptz,
    PRIMARY KEY (workspace_id, id)
);
CREATE UNIQUE INDEX workflows_name ON workflows (workspace_id, lower(name)) WHERE archived_at IS NULL;
CREATE INDEX workflows_created ON workflows (workspace_id, created_at, id);
CREATE INDEX workflows_triggers ON workflows (workspace_id, trigger_event) WHERE archived_at IS NULL AND trigger_event IS NOT NULL;

CREATE TABLE workflow_versions (
    workspace_id text NOT NULL,
    workflow_id  text NOT NULL,
    version      integer NOT NULL CHECK (version >= 1),
    definition   jsonb NOT NULL,
    created_by   text NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workspace_id, workflow_id, version),
    FOREIGN KEY (workspace_id, workflow_id) REFERENCES workflows (workspace_id, id)
);

-- Signing secrets and secret headers. Definitions name them by id; only a worker about to make the call opens them.
CREATE TABLE secrets (
    workspace_id text NOT NULL,
    id           text NOT NULL,
    workflow_id  text NOT NULL,
    sealed       text NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workspace_id, id),
    FOREIGN KEY (workspace_id, workflow_id) REFERENCES workflows (workspace_id, id)
);

-- Who last got a lead from an assign_owner step. The row's lock makes the rotation fair among concurrent runs.
CREATE TABLE rotations (
    workspace_id text NOT NULL,
    workflow_id  text NOT NULL,
    step_id      text NOT NULL,
    last_user_id text NOT NULL,
    PRIMARY KEY (workspace_id, workflow_id, step_id),
    FOREIGN KEY (workspace_id, workflow_id) REFERENCES workflows (workspace_id, id)
);
