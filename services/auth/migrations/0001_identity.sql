-- A workspace is a wall: every other row belongs to one.
CREATE TABLE workspaces (
    id         text PRIMARY KEY,
    name       text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT date_trunc('milliseconds', now())
);

-- Who may sign in. The e-mail address is stored normalised and is unique over all workspaces, because signing in names nothing else.
-- `version` counts what is announced; `password_version` counts passwords, so that a sign-in that verified an old one is refused.
CREATE TABLE users (
    workspace_id     text NOT NULL REFERENCES workspaces (id),
    id               text NOT NULL,
    email            text NOT NULL,
    name             text NOT NULL,
    role             text NOT NULL CHECK (role IN ('viewer', 'agent', 'admin')),
    password_hash    text NOT NULL,
    password_version integer NOT NULL DEFAULT 1,
    active           boolean NOT NULL DEFAULT true,
    version          bigint NOT NULL DEFAULT 1,
    created_at       timestamptz NOT NULL DEFAULT date_trunc('milliseconds', now()),
    updated_at       timestamptz NOT NULL DEFAULT date_trunc('milliseconds', now()),
    PRIMARY KEY (workspace_id, id)
);
CREATE UNIQUE INDEX users_email ON users (email);
CREATE INDEX users_listed ON users (workspace_id, created_at, id);

-- One sign-in and everything refreshed from it. It is over when it has ended or when nobody refreshed it until `expires_at`.
CREATE TABLE sessions (
    workspace_id text NOT NULL,
    id           text NOT NULL,
    user_id      text NOT NULL,
    address      text NOT NULL,
    user_agent   text NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT date_trunc('milliseconds', now()),
    last_used_at timestamptz NOT NULL DEFAULT date_trunc('milliseconds', now()),
    expires_at   timestamptz NOT NULL,
    ended_at     timestamptz,
    end_reason   text CHECK (end_reason IN
        ('logout', 'ended', 'refresh_token_reused', 'user_disabled', 'role_changed', 'password_changed')),
    PRIMARY KEY (workspace_id, id),
    FOREIGN KEY (workspace_id, user_id) REFERENCES users (workspace_id, id),
    CHECK ((ended_at IS NULL) = (end_reason IS NULL))
);
CREATE INDEX sessions_of_user ON sessions (workspace_id, user_id, created_at, id) WHERE ended_at IS NULL;
CREATE INDEX sessions_ended ON sessions (ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX sessions_expiry ON sessions (expires_at);

-- Every refresh token a session has had, as SHA-256 of the token. Rotated ones stay, so that their reuse is noticed.
CREATE TABLE refresh_tokens (
    workspace_id text NOT NULL,
    session_id   text NOT NULL,
    token_hash   bytea NOT NULL CHECK (octet_length(token_hash) = 32),
    issued_at    timestamptz NOT NULL DEFAULT now(),
    rotated_at   timestamptz,
    PRIMARY KEY (workspace_id, session_id, token_hash),
    FOREIGN KEY (workspace_id, session_id) REFERENCES sessions (workspace_id, id) ON DELETE CASCADE
);
CREATE INDEX refresh_tokens_rotated ON refresh_tokens (rotated_at) WHERE rotated_at IS NOT NULL;

-- Failed sign-ins as leaking buckets, before it is known whose workspace they concern. `key` is SHA-256 of what is counted.
CREATE TABLE login_failures (
    kind           text NOT NULL CHECK (kind IN ('account', 'address', 'pair')),
    key            bytea NOT NULL,
    level          double precision NOT NULL,
    last_failed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (kind, key)
);
CREATE INDEX login_failures_age ON login_failures (last_failed_at);

-- The system's signing keys (Ed25519), shared by all workspaces. The newest active one signs; private halves are sealed.
CREATE TABLE signing_keys (
    kid            text PRIMARY KEY,
    public_key     bytea NOT NULL CHECK (octet_length(public_key) = 32),
    sealed_private text NOT NULL,
    created_at     timestamptz NOT NULL DEFAULT now(),
    activates_at   timestamptz NOT NULL
);
