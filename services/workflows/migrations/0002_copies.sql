-- Slim copies of what other services announce; a newer version wins.
CREATE TABLE users (
    workspace_id text NOT NULL,
    id           text NOT NULL,
    name         text NOT NULL,
    active       boolean NOT NULL,
    version      bigint NOT NULL,
    PRIMARY KEY (workspace_id, id)
);

-- Leads as their newest event shows them. Its row is locked by the event's consumer and by a run that begins to wait,
-- so that no event falls between a run's look at the lead and its wait.
CREATE TABLE lead_view (
    workspace_id text NOT NULL,
    lead_id      text NOT NULL,
    version      bigint NOT NULL,
    deleted      boolean NOT NULL,
    lead         jsonb NOT NULL,
    PRIMARY KEY (workspace_id, lead_id)
);

-- The newest outcome of each lead in each CRM connection.
CREATE TABLE crm_view (
    workspace_id  text NOT NULL,
    lead_id       text NOT NULL,
    connection_id text NOT NULL,
    version       bigint NOT NULL,
    type          text NOT NULL,
    data          jsonb NOT NULL,
    PRIMARY KEY (workspace_id, lead_id, connection_id)
);
