-- What the processes of one site share. Times are seconds since 1970.

CREATE TABLE messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT,  -- never given twice: it is the delivery tag
    queue TEXT NOT NULL,
    payload BLOB NOT NULL,
    expires REAL,                          -- NULL: never, or it was handed out in time
    owner INTEGER,                         -- the process that holds it; NULL: it waits
    handed_out REAL,                       -- when it was, last
    deaths INTEGER NOT NULL DEFAULT 0      -- how many processes died with it
);
CREATE INDEX messages_waiting ON messages (queue, id) WHERE owner IS NULL;
CREATE INDEX messages_held ON messages (owner) WHERE owner IS NOT NULL;
CREATE INDEX messages_expiring ON messages (expires) WHERE expires IS NOT NULL;

CREATE TABLE queues (
    name TEXT PRIMARY KEY,
    lifetime REAL,                         -- seconds that it lives unread; NULL: for ever
    used REAL NOT NULL,                    -- when somebody read from it last
    reader INTEGER                         -- the process that did
) WITHOUT ROWID;

CREATE TABLE bindings (
    exchange TEXT NOT NULL,
    routing_key TEXT NOT NULL,
    pattern TEXT NOT NULL,
    queue TEXT NOT NULL,
    PRIMARY KEY (exchange, routing_key, pattern, queue)
) WITHOUT ROWID;

CREATE TABLE members (
    in_group TEXT NOT NULL,
    channel TEXT NOT NULL,
    expires REAL NOT NULL,
    PRIMARY KEY (in_group, channel)
) WITHOUT ROWID;
CREATE INDEX members_channel ON members (channel);
