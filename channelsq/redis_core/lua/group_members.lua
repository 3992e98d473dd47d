-- The members of a group, without those whose membership has ended.
--
-- KEYS[1]  set: the channels in the group             (members that ended are removed)
-- KEYS[2]  sorted set: channel -> unix time of its end (the same)
-- ARGV[1]  now, unix time in seconds
-- Return the remaining members of KEYS[1].
local ended = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', ARGV[1])
-- unpack() is limited by the Lua stack, so go in steps
for first = 1, #ended, 1000 do
  local last = math.min(first + 999, #ended)
  redis.call('SREM', KEYS[1], unpack(ended, first, last))
  redis.call('ZREM', KEYS[2], unpack(ended, first, last))
end
return redis.call('SMEMBERS', KEYS[1])
