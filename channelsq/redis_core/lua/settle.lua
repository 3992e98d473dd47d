#!lua flags=no-cluster,allow-oom
-- Runs commands one after the other, as one: all of them, or none where the server refuses writes.
--
-- A server that is full takes them all the same: an acknowledgement frees memory, and what goes with it is bounded.
--
-- ARGV     for each command how many words it has, and the words
--
-- Return the text of the errors that single commands ended with; MULTI would answer each command twice, and what
-- is sent for every few messages is answered for every few messages.  An error that says that the server is away for
-- now ends the script with it, before the acknowledgements, which come last: it is all to be sent again.

-- The same as CODES in away.py.
local AWAY = {
    BUSY = true, CLUSTERDOWN = true, LOADING = true, MASTERDOWN = true, MISCONF = true, NOAUTH = true,
    NOREPLICAS = true, OOM = true, READONLY = true, TRYAGAIN = true, WRONGPASS = true,
}

local errors = {}
local at = 1
while at <= #ARGV do
    local words = tonumber(ARGV[at])
    local reply = redis.pcall(unpack(ARGV, at + 1, at + words))
    if type(reply) == 'table' and reply.err then
        if AWAY[string.match(reply.err, '^-?(%u+)')] then
            return reply
        end
        errors[#errors + 1] = reply.err
    end
    at = at + words + 1
end
return errors
