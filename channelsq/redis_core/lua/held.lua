#!lua flags=no-cluster,allow-oom
-- Reads what a consumer holds, without counting that as another delivery, as XREADGROUP would.
--
-- KEYS[1]  stream:<queue>
-- ARGV[1]  the group
-- ARGV[2]  the consumer
-- ARGV[3]  the id after which to begin, '-' for the first
-- ARGV[4]  how many entries at most
--
-- Return {last, {{id, {field, value, ...}}, ...}}: the id to go on after, an empty string when there is no more; each
-- entry with one more field d, how many consumers died with it.  An entry whose message was deleted is left out.

local entries = {}
local start = ARGV[3] == '-' and '-' or '(' .. ARGV[3]
local pending = redis.call('XPENDING', KEYS[1], ARGV[1], start, '+', ARGV[4], ARGV[2])
for _, held in ipairs(pending) do
    local entry = redis.call('XRANGE', KEYS[1], held[1], held[1])[1]
    if entry then
        local fields = entry[2]
        local before = 0
        for i = 1, #fields, 2 do
            if fields[i] == 'd' then
                before = tonumber(fields[i + 1]) or 0
            end
        end
        fields[#fields + 1] = 'd'
        fields[#fields + 1] = tostring(before + held[4] - 1)  -- the last delivery is this consumer's own
        entries[#entries + 1] = entry
    end
end
return {#pending > 0 and pending[#pending][1] or '', entries}
