-- Replaces a field of a record if no other process has changed it.
--
-- KEYS[1]  <prefix>:record:{<record>}  hash: the fields; expires in ARGV[4] ms if the field is replaced
-- ARGV[1]  the field
-- ARGV[2]  the value that it has; empty if it has none
-- ARGV[3]  the new value
-- ARGV[4]  ms that the record lives from now
--
-- Return an empty list if the field was replaced, else a list of its value, which is empty if it has none.

local current = redis.call('HGET', KEYS[1], ARGV[1]) or ''
if current ~= ARGV[2] then
    return {current}
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return {}
