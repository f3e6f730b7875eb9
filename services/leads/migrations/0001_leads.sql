-- Leads, what they are checked against, and what is shown of them.
CREATE EXTENSION IF NOT EXISTS pg_trgm;

-- `version` counts real changes and is what the world sees; `revision` counts every change of the representation, a CRM's
-- id arriving included, and orders what the cache holds. `dedupe_key` is the normalised e-mail, else the phone; NULL for a
-- lead that was created as an allowed duplicate.
CREATE TABLE leads (
    workspace_id text NOT NULL,
    id           text NOT NULL,
    email        text,
    phone        text,
    first_name   text,
    last_name    text,
    company      text,
    title        text,
    source       text,
    stage        text NOT NULL CHECK (stage IN ('new', 'contacted', 'qualified', 'converted', 'lost')),
    score        smallint NOT NULL CHECK (score BETWEEN 0 AND 100),
    owner_id     text,
    tags         jsonb NOT NULL CHECK (jsonb_typeof(tags) = 'array'),
    custom       jsonb NOT NULL CHECK (jsonb_typeof(custom) = 'object'),
    consent      jsonb NOT NULL CHECK (jsonb_typeof(consent) = 'object'),
    external_ids jsonb NOT NULL DEFAULT '{}',
    dedupe_key   text,
    version      bigint NOT NULL CHECK (version >= 1),
    revision     bigint NOT NULL CHECK (revision >= version),
    created_at   timestamptz NOT NULL,
    updated_at   timestamptz NOT NULL,
    deleted_at   timestamptz,
    PRIMARY KEY (workspace_id, id),
    CHECK (email IS NOT NULL OR phone IS NOT NULL)
);
CREATE UNIQUE INDEX leads_dedupe_key ON leads (workspace_id, dedupe_key) WHERE deleted_at IS NULL;

-- One index per sort order of the list; `id` makes each order total.
CREATE INDEX leads_by_created_at ON leads (workspace_id, created_at, id) WHERE deleted_at IS NULL;
CREATE INDEX leads_by_updated_at ON leads (workspace_id, updated_at, id) WHERE deleted_at IS NULL;
CREATE INDEX leads_by_score ON leads (workspace_id, score, id) WHERE deleted_at IS NULL;
CREATE INDEX leads_by_last_name ON leads (workspace_id, lower(coalesce(last_name, '')) COLLATE "C", id)
    WHERE deleted_at IS NULL;
CREATE INDEX leads_by_owner ON leads (workspace_id, owner_id) WHERE deleted_at IS NULL AND owner_id IS NOT NULL;
CREATE INDEX leads_by_tag ON leads USING gin (tags jsonb_path_ops) WHERE deleted_at IS NULL;

-- What `q` searches, and what finds an e-mail, a phone or a company: one trigram index over all of them.
CREATE FUNCTION lead_search_text(
    first_name text, last_name text, email text, phone text, company text
) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT coalesce(first_name, '') || ' ' || coalesce(last_name, '') || ' ' || coalesce(email, '') || ' '
        || coalesce(phone, '') || ' ' || coalesce(company, '')
$$;
CREATE INDEX leads_search ON leads
    USING gin (lead_search_text(first_name, last_name, email, phone, company) gin_trgm_ops)
    WITH (gin_pending_list_limit = 256) WHERE deleted_at IS NULL;

-- The slim copy of auth's users that owners are checked against; a newer `version` wins.
CREATE TABLE users (
    workspace_id text NOT NULL,
    id           text NOT NULL,
    name         text NOT NULL,
    active       boolean NOT NULL,
    version      bigint NOT NULL,
    PRIMARY KEY (workspace_id, id)
);

-- What a workspace has chosen for its leads; without a row, the service's defaults hold.
CREATE TABLE workspace_settings (
    workspace_id   text PRIMARY KEY,
    default_region text NOT NULL CHECK (default_region ~ '^[A-Z]{2}$')
);

-- Where each CRM holds a lead, as crm-sync last said; a newer `version` of the same connection wins.
CREATE TABLE external_ids (
    workspace_id  text NOT NULL,
    lead_id       text NOT NULL,
    connection_id text NOT NULL,
    external_id   text,
    version       bigint NOT NULL,
    PRIMARY KEY (workspace_id, lead_id, connection_id),
    FOREIGN KEY (workspace_id, lead_id) REFERENCES leads (workspace_id, id)
);

-- A lead's whole way. (`at`, `event_id`, `position`) is the order; an event that is taken twice writes the same rows.
CREATE TABLE timeline (
    workspace_id text NOT NULL,
    lead_id      text NOT NULL,
    at           timestamptz NOT NULL,
    event_id     text NOT NULL,
    position     smallint NOT NULL,
    kind         text NOT NULL CHECK (kind IN ('change', 'event', 'run', 'step', 'crm_attempt', 'crm')),
    entry        json NOT NULL,
    PRIMARY KEY (workspace_id, lead_id, at, event_id, position),
    FOREIGN KEY (workspace_id, lead_id) REFERENCES leads (workspace_id, id)
);
