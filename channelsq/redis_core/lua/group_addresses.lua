-- Whom a message to a group is sent to: its members, by the process that has them.
--
-- KEYS[1]  set: the channels in the group             (members that ended are removed)
-- KEYS[2]  sorted set: channel -> unix time of its end (the same)
-- KEYS[3]  string: the last reply, for a large group   (every addition deletes it)
-- ARGV[1]  now, unix time in seconds
-- ARGV[2]  how many channels at most to put together
-- ARGV[3]  milliseconds for which a reply is kept
-- ARGV[4]  the number of members from which on it is
--
-- Returns {{channel, ...}, prefix, packed, prefix, packed, ...}: first the members without a process, then for each
-- process the prefix of its channels ("name.<process>!") and a msgpack list of them, which only that process unpacks.
-- A process with more than ARGV[2] channels comes several times.
local ended = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', ARGV[1])
-- unpack() is limited by the Lua stack, so go in steps
for first = 1, #ended, 1000 do
  local last = math.min(first + 999, #ended)
  redis.call('SREM', KEYS[1], unpack(ended, first, last))
  redis.call('ZREM', KEYS[2], unpack(ended, first, last))
end

-- These differ once a member has left.  They differ, too, once a process of an older version has added one, which
-- deletes nothing, unless its clock is behind that of others.
local size = redis.call('SCARD', KEYS[1])
local last = redis.call('ZREVRANGE', KEYS[2], 0, 0, 'WITHSCORES')[2] or ''
local state = size .. ' ' .. redis.call('ZCARD', KEYS[2]) .. ' ' .. last
local is_large = size >= tonumber(ARGV[4])
if is_large then
  local kept = redis.call('GET', KEYS[3])
  if kept then
    local said, reply = cmsgpack.unpack(kept)
    if said == state then
      return reply
    end
  end
end

local most, find = tonumber(ARGV[2]), string.find
local others, found, open = {}, {}, {}
local part, prefix, channels, count
for _, channel in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  if not prefix or find(channel, prefix, 1, true) ~= 1 or count == most then
    if part then
      part.count = count
    end
    local cut = find(channel, '!', 1, true)
    prefix = cut and string.sub(channel, 1, cut)
    part = prefix and open[prefix]
    if prefix and (not part or part.count == most) then
      part = {prefix = prefix, count = 0, channels = {}}
      open[prefix] = part
      found[#found + 1] = part
    end
    if part then
      channels, count = part.channels, part.count
    end
  end
  if prefix then
    count = count + 1
    channels[count] = channel
  else
    others[#others + 1] = channel
  end
end

local reply = {others}
for _, part in ipairs(found) do
  reply[#reply + 1] = part.prefix
  reply[#reply + 1] = cmsgpack.pack(part.channels)
end
if is_large then
  -- Without memory, or on a server that takes no writes, the next send does this work again.
  redis.pcall('SET', KEYS[3], cmsgpack.pack(state, reply), 'PX', ARGV[3])
end
return reply
