#!lua flags=no-cluster,allow-oom
-- Takes entries for a consumer without waiting: from the first stream until it is empty, then from the next.
--
-- XREADGROUP over several streams has a COUNT for each of them; this has one for all, so that no more is
-- taken than asked for, and what is in front goes first.
--
-- KEYS     stream:<queue>...   in the order in which they are served; a missing one is passed over
-- ARGV[1]  the group           made if a stream does not have it
-- ARGV[2]  the consumer
-- ARGV[3]  how many entries at most
--
-- Return {{stream, {{id, {field, value}}, ...}}, ...} as XREADGROUP does, {} if there is nothing.

local left = tonumber(ARGV[3])
local taken = {}
for _, key in ipairs(KEYS) do
    if left <= 0 then
        break
    end
    local got = redis.pcall('XREADGROUP', 'GROUP', ARGV[1], ARGV[2], 'COUNT', left, 'STREAMS', key, '>')
    if type(got) == 'table' and got.err then
        if not string.find(got.err, 'NOGROUP', 1, true) then
            return got
        end
        got = nil
        if redis.call('EXISTS', key) == 1 then
            redis.call('XGROUP', 'CREATE', key, ARGV[1], '0')
            got = redis.call('XREADGROUP', 'GROUP', ARGV[1], ARGV[2], 'COUNT', left, 'STREAMS', key, '>')
        end
    end
    if got and got[1] then
        left = left - #got[1][2]
        taken[#taken + 1] = got[1]
    end
end
return taken
