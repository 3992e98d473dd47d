-- Take the messages that have expired off the front of a queue of Kombu's Redis transport.
--
-- KEYS[1]  list: the queue; Kombu pushes on the left and pops on the right, each element a JSON message
-- ARGV[1]  now, unix time in seconds
-- ARGV[2]  the name of the header that holds the unix time at which a message expires
-- Return how many were dropped.
local dropped = 0
while true do
  local raw = redis.call('LINDEX', KEYS[1], -1)
  if not raw then break end
  local ok, message = pcall(cjson.decode, raw)
  local headers = ok and type(message) == 'table' and message['headers']
  local expires = type(headers) == 'table' and tonumber(headers[ARGV[2]])
  if not expires or expires > tonumber(ARGV[1]) then break end
  redis.call('RPOP', KEYS[1])
  dropped = dropped + 1
end
return dropped
