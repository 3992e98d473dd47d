#!lua flags=no-cluster,allow-oom
-- Ends a consumer of streams: its place in their groups, and the streams that nobody needs any more.
--
-- A consumer that holds entries stays, because they are its own until they are acknowledged or taken over.
-- A stream without entries and without consumers is deleted, as a list is when its last element is popped.
--
-- KEYS     stream:<queue>...
-- ARGV[1]  the group
-- ARGV[2]  the consumer
--
-- Return how many entries the consumer still holds.

local held = 0
for _, key in ipairs(KEYS) do
    local consumers = redis.pcall('XINFO', 'CONSUMERS', key, ARGV[1])
    if type(consumers) == 'table' and not consumers.err then
        local others = 0
        for _, fields in ipairs(consumers) do
            local info = {}
            for i = 1, #fields, 2 do
                info[fields[i]] = fields[i + 1]
            end
            if info.name ~= ARGV[2] then
                others = others + 1
            elseif info.pending == 0 then
                redis.call('XGROUP', 'DELCONSUMER', key, ARGV[1], info.name)
            else
                held = held + info.pending
                others = others + 1
            end
        end
        if others == 0 and redis.call('XLEN', key) == 0 then
            redis.call('DEL', key)
        end
    end
end
return held
