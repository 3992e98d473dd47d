-- Takes a channel out of every group that it is in.
--
-- KEYS[1]  <prefix>:member:<channel>   set: the groups that the channel is in; deleted
-- ARGV[1]  the channel
-- ARGV[2]  the prefix; touched with it, for each of the groups:
--          <prefix>:group:{<group>}           set of members
--          <prefix>:group:{<group>}:expiry    the same by the time their membership ends
--
-- Return how many groups that were.

local groups = redis.call('SMEMBERS', KEYS[1])
for _, group in ipairs(groups) do
    local key = ARGV[2] .. ':group:{' .. group .. '}'
    redis.call('SREM', key, ARGV[1])
    redis.call('ZREM', key .. ':expiry', ARGV[1])
end
redis.call('DEL', KEYS[1])
return #groups
