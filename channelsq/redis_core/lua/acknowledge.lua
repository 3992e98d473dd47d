#!lua flags=no-cluster,allow-oom
-- Acknowledges one entry that a consumer holds.
--
-- KEYS[1]  stream:<queue>
-- ARGV[1]  the group
-- ARGV[2]  the entry's id
--
-- Return 1, or 0 if nobody holds it any more.

local acknowledged = redis.call('XACK', KEYS[1], ARGV[1], ARGV[2])
redis.call('XDEL', KEYS[1], ARGV[2])
return acknowledged
