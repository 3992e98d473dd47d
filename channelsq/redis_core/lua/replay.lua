#!lua flags=no-cluster,allow-oom
-- Takes a dead letter out, and puts its message back into a stream if there is one.
--
-- KEYS[1]  stream-dead:<queue>   deleted with its last entry
-- KEYS[2]  stream:<queue>
-- ARGV[1]  the dead letter's id
-- ARGV[2]  the message, empty for none
--
-- Return 1, or 0 if there is no such dead letter.

if redis.call('XDEL', KEYS[1], ARGV[1]) == 0 then
    return 0
end
if #ARGV[2] > 0 then
    redis.call('XADD', KEYS[2], '*', 'm', ARGV[2])
end
if redis.call('XLEN', KEYS[1]) == 0 then
    redis.call('DEL', KEYS[1])
end
return 1
