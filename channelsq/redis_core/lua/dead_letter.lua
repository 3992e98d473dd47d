#!lua flags=no-cluster,allow-oom
-- Moves an entry that a consumer holds into the dead letters of its queue.
--
-- An entry that this consumer does not hold any more is left alone: it was acknowledged, or another consumer
-- took it over.
--
-- KEYS[1]   stream:<queue>
-- KEYS[2]   stream-dead:<queue>   the oldest dead letters are dropped above ARGV[4]
-- ARGV[1]   the group
-- ARGV[2]   the consumer
-- ARGV[3]   the entry's id
-- ARGV[4]   how many dead letters are kept
-- ARGV[5..] field, value; and so on: of the dead letter
--
-- Return the dead letter's id, an empty string if the consumer did not hold the entry.

local held = redis.pcall('XPENDING', KEYS[1], ARGV[1], ARGV[3], ARGV[3], 1, ARGV[2])
if type(held) ~= 'table' or held.err or not held[1] then
    return ''
end
local id = redis.call('XADD', KEYS[2], 'MAXLEN', ARGV[4], '*', unpack(ARGV, 5))
redis.call('XACK', KEYS[1], ARGV[1], ARGV[3])
redis.call('XDEL', KEYS[1], ARGV[3])
return id
