#!lua flags=no-cluster,allow-oom
-- Counts the entries of streams that no consumer has been given, without those whose time is over.
--
-- Expired messages at the head of a stream are deleted; one behind a message that has time left is counted
-- until it comes to the head or is about to be delivered.
--
-- KEYS     stream:<queue>...
-- ARGV[1]  the group
-- ARGV[2]  how many expired entries to delete at most, in each stream
--
-- Return the sum.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function ends(entry)  -- ms since 1970, nil for a message without an end
    local fields = entry[2]
    for i = 1, #fields, 2 do
        if fields[i] == 'x' and tonumber(fields[i + 1]) then
            return tonumber(string.match(entry[1], '^%d+')) + tonumber(fields[i + 1])
        end
    end
end

local total = 0
for _, key in ipairs(KEYS) do
    local pending, last = 0, nil
    local groups = redis.pcall('XINFO', 'GROUPS', key)
    if type(groups) == 'table' and not groups.err then
        for _, fields in ipairs(groups) do
            local info = {}
            for i = 1, #fields, 2 do
                info[fields[i]] = fields[i + 1]
            end
            if info.name == ARGV[1] then
                pending, last = info.pending, info['last-delivered-id']
            end
        end
        for _ = 1, tonumber(ARGV[2]) do
            local head = redis.call('XRANGE', key, last and '(' .. last or '-', '+', 'COUNT', 1)[1]
            local time_over = head and ends(head)
            if not time_over or time_over > now then
                break
            end
            redis.call('XDEL', key, head[1])
        end
        total = total + math.max(0, redis.call('XLEN', key) - pending)
    end
end
return total
