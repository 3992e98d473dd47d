#!lua flags=no-cluster
-- Runs commands one after the other, as one: all of them, or none where the server refuses writes.
--
-- ARGV     for each command how many words it has, and the words
--
-- Gives the text of the errors that single commands ended with; MULTI would answer each command twice, and what
-- is sent for every few messages is answered for every few messages.

local errors = {}
local at = 1
while at <= #ARGV do
    local words = tonumber(ARGV[at])
    local reply = redis.pcall(unpack(ARGV, at + 1, at + words))
    if type(reply) == 'table' and reply.err then
        errors[#errors + 1] = reply.err
    end
    at = at + words + 1
end
return errors
