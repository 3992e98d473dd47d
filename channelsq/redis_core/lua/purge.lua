#!lua flags=no-cluster,allow-oom
-- Deletes entries that no consumer has been given; what consumers hold stays theirs.
--
-- KEYS     stream:<queue>...
-- ARGV[1]  the group
-- ARGV[2]  how many entries to delete at most, so that one call does not hold up the server
--
-- Return how many were deleted; call it again until that is 0.

local left = tonumber(ARGV[2])
local deleted = 0
for _, key in ipairs(KEYS) do
    local last = nil
    local groups = redis.pcall('XINFO', 'GROUPS', key)
    if type(groups) == 'table' and not groups.err then
        for _, fields in ipairs(groups) do
            local info = {}
            for i = 1, #fields, 2 do
                info[fields[i]] = fields[i + 1]
            end
            if info.name == ARGV[1] then
                last = info['last-delivered-id']
            end
        end
        while left > 0 do
            local entries = redis.call('XRANGE', key, last and '(' .. last or '-', '+', 'COUNT', math.min(left, 500))
            if #entries == 0 then
                break
            end
            local ids = {}
            for _, entry in ipairs(entries) do
                ids[#ids + 1] = entry[1]
            end
            redis.call('XDEL', key, unpack(ids))
            left = left - #ids
            deleted = deleted + #ids
        end
        if last == nil and redis.call('XLEN', key) == 0 then
            redis.call('DEL', key)  -- nobody consumes it, so nothing would delete it later
        end
    end
end
return deleted
