#!lua flags=no-cluster,allow-oom
-- Ends consumers that lost their connection and live on under another name: their leases go, and the delivery that
-- they lost counts as no death of what they hold.
--
-- KEYS      stream:<queue>...
-- ARGV[1]   the group
-- ARGV[2]   stream-lease:   with the global prefix; <this><consumer> is deleted for each of them
-- ARGV[3..] the consumers
--
-- Return how many entries they hold.

local held = 0
for i = 3, #ARGV do
    for _, key in ipairs(KEYS) do
        local start = '-'
        while start do
            local pending = redis.pcall('XPENDING', key, ARGV[1], start, '+', 1000, ARGV[i])
            start = nil
            for _, entry in ipairs(pending) do  -- of an error, such as that of a missing group, this sees nothing
                redis.call('XCLAIM', key, ARGV[1], ARGV[i], 0, entry[1], 'RETRYCOUNT', entry[4] - 1, 'JUSTID')
                held = held + 1
                start = '(' .. entry[1]
            end
        end
    end
    redis.call('DEL', ARGV[2] .. ARGV[i])
end
return held
