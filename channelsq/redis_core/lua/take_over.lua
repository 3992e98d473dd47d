#!lua flags=no-cluster,allow-oom
-- Give a consumer what consumers without a lease hold, and remove those that hold nothing.
--
-- How many consumers died with an entry is what its field d says, of those that held the entry which this one is a
-- copy of, and its count of deliveries.  After the second death entries are handed out in quarantine: the more
-- often consumers died with them, the fewer at a time, the last time alone; see docs/how-to/extend/transport.md.
--
-- KEYS     stream:<queue>...
-- ARGV[1]  the group
-- ARGV[2]  the consumer that takes over
-- ARGV[3]  stream-lease:   with the global prefix; <this><consumer> is looked at for each consumer of the group
-- ARGV[4]  how many entries at most
-- ARGV[5]  how many deaths make a dead letter, 0 for no number of them
-- ARGV[6]  how much of the consumer's quarantine is free, 0 to 1
--
-- Return {stopped, {{stream, {{id, {field, value, ...}}, ...}}, ...}}: 1 if the quarantine had no room for the next
-- entry, else 0; the rest as XREADGROUP does, each entry with one more field d, the deaths.

local left = tonumber(ARGV[4])
local limit = tonumber(ARGV[5])
local room = tonumber(ARGV[6])
local stopped = 0
local taken = {}

-- The same as Suspects.cost() in suspects.py.
local function cost(deaths)
    if limit == 0 or deaths < 1 or deaths >= limit or (deaths < 2 and limit > 2) then
        return 0
    end
    return 4 ^ (deaths - limit + 1)
end

local function deaths_before(fields)
    for i = 1, #fields, 2 do
        if fields[i] == 'd' then
            return tonumber(fields[i + 1]) or 0
        end
    end
    return 0
end

local function claim(key, consumer, pending, entries)  -- gives how many the consumer still holds
    local ids, deaths = {}, {}
    for _, held in ipairs(redis.call('XPENDING', key, ARGV[1], '-', '+', left, consumer)) do
        local entry = redis.call('XRANGE', key, held[1], held[1])[1]
        local count = held[4] + (entry and deaths_before(entry[2]) or 0)
        local price = entry and cost(count) or 0
        if price > room then  -- nor those behind it: else it would wait for ever
            stopped = 1
            break
        end
        room = room - price
        ids[#ids + 1] = held[1]
        deaths[held[1]] = count
    end
    if #ids == 0 then
        return pending
    end
    -- An entry whose message was deleted meanwhile only leaves the list of pending ones.
    for _, entry in ipairs(redis.call('XCLAIM', key, ARGV[1], ARGV[2], 0, unpack(ids))) do
        entry[2][#entry[2] + 1] = 'd'
        entry[2][#entry[2] + 1] = tostring(deaths[entry[1]])
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
            if pending > 0 and left > 0 and stopped == 0 then
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
return {stopped, taken}
