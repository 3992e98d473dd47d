-- Tables that came after version 1, whose files they are added to: processes of that version know nothing of them.

-- Runs that have begun and must not be repeated.
CREATE TABLE IF NOT EXISTS begun (
    mark TEXT PRIMARY KEY,
    expires REAL NOT NULL                  -- when it is forgotten
) WITHOUT ROWID;
