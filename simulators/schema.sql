-- Everything the simulators keep. Times are seconds since 1970.

CREATE TABLE IF NOT EXISTS accounts (
    portal_id INTEGER PRIMARY KEY,
    settings  TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS tokens (
    token      TEXT PRIMARY KEY,
    portal_id  INTEGER NOT NULL,
    kind       TEXT NOT NULL CHECK (kind IN ('static', 'oauth')),
    expires_at REAL
);
CREATE TABLE IF NOT EXISTS daily_usage (
    portal_id INTEGER NOT NULL,
    day       TEXT NOT NULL,
    used      INTEGER NOT NULL,
    PRIMARY KEY (portal_id, day)
);
CREATE TABLE IF NOT EXISTS properties (
    portal_id  INTEGER NOT NULL,
    name       TEXT NOT NULL,
    definition TEXT NOT NULL,
    PRIMARY KEY (portal_id, name)
);

CREATE TABLE IF NOT EXISTS contacts (
    portal_id   INTEGER NOT NULL,
    id          INTEGER NOT NULL,
    properties  TEXT NOT NULL,
    created_at  REAL NOT NULL,
    updated_at  REAL NOT NULL,
    archived_at REAL,
    PRIMARY KEY (portal_id, id)
);
CREATE TABLE IF NOT EXISTS contact_ids (id INTEGER PRIMARY KEY AUTOINCREMENT);
-- Who holds an e-mail address or another unique value. Only live contacts hold any.
CREATE TABLE IF NOT EXISTS identities (
    portal_id  INTEGER NOT NULL,
    property   TEXT NOT NULL,
    value      TEXT NOT NULL,
    contact_id INTEGER NOT NULL,
    PRIMARY KEY (portal_id, property, value)
);
CREATE INDEX IF NOT EXISTS identities_of_contact ON identities (portal_id, contact_id);
CREATE TABLE IF NOT EXISTS merges (
    portal_id INTEGER NOT NULL,
    id        INTEGER NOT NULL,
    into_id   INTEGER NOT NULL,
    PRIMARY KEY (portal_id, id)
);
CREATE TABLE IF NOT EXISTS erased_emails (
    portal_id INTEGER NOT NULL,
    email     TEXT NOT NULL,
    PRIMARY KEY (portal_id, email)
);

-- The journal: every request received, and every write it led to with the contact's properties after it.
CREATE TABLE IF NOT EXISTS requests (
    seq            INTEGER PRIMARY KEY AUTOINCREMENT,
    at             REAL NOT NULL,
    finished_at    REAL,
    portal_id      INTEGER,
    operation      TEXT NOT NULL,
    method         TEXT NOT NULL,
    path           TEXT NOT NULL,
    request_id     TEXT,
    correlation_id TEXT NOT NULL,
    body           TEXT NOT NULL,
    status         INTEGER,
    outcome        TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS writes (
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,
    at          REAL NOT NULL,
    request_seq INTEGER NOT NULL,
    portal_id   INTEGER NOT NULL,
    contact_id  INTEGER NOT NULL,
    kind        TEXT NOT NULL CHECK (kind IN ('create', 'update', 'archive', 'merge', 'erase')),
    write_id    TEXT,
    is_change   INTEGER NOT NULL,
    is_archived INTEGER NOT NULL,
    properties  TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS writes_of_contact ON writes (portal_id, contact_id, seq);

CREATE TABLE IF NOT EXISTS endpoints (
    name    TEXT PRIMARY KEY,
    secret  TEXT,
    answers TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS deliveries (
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,
    at          REAL NOT NULL,
    name        TEXT NOT NULL,
    webhook_id  TEXT,
    is_verified INTEGER,
    headers     TEXT NOT NULL,
    body        TEXT NOT NULL,
    status      INTEGER,
    outcome     TEXT NOT NULL
);
