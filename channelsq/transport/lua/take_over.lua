-- Gives a consumer what consumers without a lease hold, and removes those that hold nothing.
--
-- KEYS     stream:<queue>...
-- ARGV[1]  the group
-- ARGV[2]  the consumer that takes over
-- ARGV[3]  stream-lease:   with the global prefix; <this><consumer> is looked at for each consumer of the group
-- ARGV[4]  how many entries at most
--
-- Gives {{stream, {{id, {field, value}}, ...}}, ...} as XREADGROUP does, {} if there is nothing.

local left = tonumber(ARGV[4])
local taken = {}

local function claim(key, consumer, pending, entries)  -- gives how many the consumer still holds
    local ids = {}
    for _, entry in ipairs(redis.call('XPENDING', key, ARGV[1], '-', '+', left, consumer)) do
        ids[#ids + 1] = entry[1]
    end
    -- An entry whose message was deleted meanwhile only leaves the list of pending ones.
    for _, entry in ipairs(redis.call('XCLAIM', key, ARGV[1], ARGV[2], 0, unpack(ids))) do
        entries[#entries + 1] = entry
    end
    left = left - #ids
    return pending - #ids
end

for _, key in ipairs(KEYS) do
    local entries = {}
    local consumers = redis.pcall('XINFO', 'CONSUMERS', key, ARGV[1])
    for _, fields in ipairs(consumers) do  -- of an error, such as that of a missing stream, this sees nothing
        local info = {}
        for i = 1, #fields, 2 do
            info[fields[i]] = fields[i + 1]
        end
        if info.name ~= ARGV[2] and redis.call('EXISTS', ARGV[3] .. info.name) == 0 then
            local pending = info.pending
            if pending > 0 and left > 0 then
                pending = claim(key, info.name, pending, entries)
            end
            if pending == 0 then
                redis.call('XGROUP', 'DELCONSUMER', key, ARGV[1], info.name)
            end
        end
    end
    if #entries > 0 then
        taken[#taken + 1] = {key, entries}
    end
end
return taken
