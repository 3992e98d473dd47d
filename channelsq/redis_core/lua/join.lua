#!lua flags=no-cluster,allow-oom
-- Makes a consumer of one or more streams: its lease, the consumer group, its place in the group.
--
-- KEYS[1]    stream-lease:<consumer>   set for ARGV[3] ms: this consumer is alive
-- KEYS[2..]  stream:<queue>...         made if missing (empty), with the group, which starts at the first entry
-- ARGV[1]    the group
-- ARGV[2]    the consumer
-- ARGV[3]    the lease in ms
-- ARGV[4..]  for each stream its x-expires in ms, 0 for none
--
-- Return 1.

redis.call('SET', KEYS[1], 1, 'PX', ARGV[3])
for i = 2, #KEYS do
    local made = redis.pcall('XGROUP', 'CREATE', KEYS[i], ARGV[1], '0', 'MKSTREAM')
    if type(made) == 'table' and made.err and not string.find(made.err, 'BUSYGROUP', 1, true) then
        return made
    end
    redis.call('XGROUP', 'CREATECONSUMER', KEYS[i], ARGV[1], ARGV[2])
    local expires = tonumber(ARGV[i + 2])
    if expires > 0 then
        redis.call('PEXPIRE', KEYS[i], expires)
    end
end
return 1
