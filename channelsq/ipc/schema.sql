-- What the processes of one site share. Times are seconds since 1970.

CREATE TABLE begun_in (
    boot TEXT NOT NULL                     -- the run of the machine's kernel in which the file was made
);

CREATE TABLE queues (
    id INTEGER PRIMARY KEY AUTOINCREMENT,  -- never given twice
    name TEXT NOT NULL UNIQUE,
    last INTEGER NOT NULL DEFAULT 0,       -- the number of its last message
    waiting INTEGER NOT NULL DEFAULT 0,    -- how many messages wait, those that have expired included
    lifetime REAL,                         -- seconds that it lives unread; NULL: for ever
    used REAL NOT NULL,                    -- when a process read from it, or sent to it, last
    reader INTEGER,                        -- the process that reads from it, if it has a lifetime
    declared INTEGER NOT NULL DEFAULT 0    -- whether it stays though it is empty
);

-- Messages that wait. A queue's messages lie side by side, the next one first.
CREATE TABLE messages (
    queue INTEGER NOT NULL,
    rank INTEGER NOT NULL,                 -- the priority, 0 first
    id INTEGER NOT NULL,                   -- the number within the queue
    payload BLOB NOT NULL,
    expires REAL,                          -- NULL: never, or it was handed out in time
    deaths INTEGER NOT NULL DEFAULT 0,     -- how many processes died with it
    again INTEGER NOT NULL DEFAULT 0,      -- whether it was handed out before
    PRIMARY KEY (queue, rank, id)
) WITHOUT ROWID;
CREATE INDEX messages_suspect ON messages (queue, rank, id) WHERE deaths > 1;

-- Messages that processes hold.
CREATE TABLE held (
    owner INTEGER NOT NULL,                -- the process
    queue INTEGER NOT NULL,
    id INTEGER NOT NULL,
    rank INTEGER NOT NULL,
    payload BLOB NOT NULL,
    deaths INTEGER NOT NULL,
    PRIMARY KEY (owner, queue, id)
) WITHOUT ROWID;

-- Messages that wait for their time, and are then put into their queues.
CREATE TABLE delayed (
    id INTEGER PRIMARY KEY,
    due REAL NOT NULL,
    queue TEXT NOT NULL,
    payload BLOB NOT NULL,
    lifetime REAL,                         -- seconds that it may wait in its queue
    capacity INTEGER NOT NULL              -- that of the queue
);
CREATE INDEX delayed_due ON delayed (due);

CREATE TABLE dead_letters (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    queue TEXT NOT NULL,
    died REAL NOT NULL,
    deaths INTEGER NOT NULL,
    reason TEXT NOT NULL,
    rank INTEGER NOT NULL,
    payload BLOB NOT NULL
);
CREATE INDEX dead_letters_queue ON dead_letters (queue, id);

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
CREATE INDEX members_expires ON members (expires);

-- Runs that have begun and must not be repeated.
CREATE TABLE begun (
    mark TEXT PRIMARY KEY,
    expires REAL NOT NULL                  -- when it is forgotten
) WITHOUT ROWID;
CREATE INDEX begun_expires ON begun (expires);

-- The fields of records, see channelsq/layers/groups/records.py.
CREATE TABLE records (
    record TEXT NOT NULL,
    field TEXT NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (record, field)
) WITHOUT ROWID;

-- When each record ends.
CREATE TABLE record_ends (
    record TEXT PRIMARY KEY,
    expires REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX record_ends_expires ON record_ends (expires);

-- Who waits for messages, see wake_ups.py.
CREATE TABLE waiters (
    slot INTEGER PRIMARY KEY,              -- its byte in the file "waiting", and the number of its socket
    process INTEGER NOT NULL
);

-- Which queues a waiter waits for. A queue need not be there.
CREATE TABLE readers (
    queue TEXT NOT NULL,
    slot INTEGER NOT NULL,
    PRIMARY KEY (queue, slot)
) WITHOUT ROWID;
CREATE INDEX readers_slot ON readers (slot);
