#!lua flags=no-cluster,allow-oom
-- Puts entries that a consumer holds back into their stream: a copy at the end for each, the old ones gone.
--
-- An entry that this consumer does not hold any more is left alone: it was acknowledged, or another
-- consumer took it over, and a copy of it would be handled twice.
--
-- KEYS[1]   stream:<queue>
-- ARGV[1]   the group
-- ARGV[2]   the consumer
-- ARGV[3..] id, message, lifetime in ms or nothing, deaths; and so on: an empty message is not copied
--
-- Return how many the consumer held.

local returned = 0
for i = 3, #ARGV, 4 do
    local held = redis.pcall('XPENDING', KEYS[1], ARGV[1], ARGV[i], ARGV[i], 1, ARGV[2])
    if type(held) == 'table' and not held.err and held[1] then
        if #ARGV[i + 1] > 0 then
            local fields = {'m', ARGV[i + 1]}
            if #ARGV[i + 2] > 0 then
                fields[#fields + 1] = 'x'
                fields[#fields + 1] = ARGV[i + 2]
            end
            if ARGV[i + 3] ~= '0' then
                fields[#fields + 1] = 'd'
                fields[#fields + 1] = ARGV[i + 3]
            end
            redis.call('XADD', KEYS[1], '*', unpack(fields))
        end
        redis.call('XACK', KEYS[1], ARGV[1], ARGV[i])
        redis.call('XDEL', KEYS[1], ARGV[i])
        returned = returned + 1
    end
end
return returned
