-- A node stops: gives back what it has leased, if that is still its own, so that nobody waits for it to end.
--
-- KEYS[1]  the prefix of the first bucket
-- ARGV     node, token

local call = redis.call
local mine, writer = KEYS[1] .. 'node:' .. ARGV[1], KEYS[1] .. 'writer'
if call('HGET', mine, 'token') == ARGV[2] then call('DEL', mine) end
if call('GET', writer) == ARGV[2] then call('DEL', writer) end
return 'OK'
