-- What Redis has of the ledger, and whether every node has had the time to look at it.
--
-- A Redis that was started again may have less than it had, and a node that has read more must be able to say so before
-- another goes on with what there is. So for a while after a start nobody goes on.
--
-- KEYS[1]  the ledger's prefix
-- ARGV     what Redis calls its own process, how long nodes take to look (ms)
--
-- Replies generation, last entry, floor, the second in which the generation was made, and how long it is still to be
-- left alone (ms).

local call = redis.call
local state = KEYS[1] .. 'state'
local now = call('TIME')
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)
if call('HGET', state, 'run') ~= ARGV[1] then
  call('HSET', state, 'run', ARGV[1], 'run_ms', string.format('%.0f', now_ms))
end
local known = call('HMGET', state, 'generation', 'count', 'floor', 'since_s', 'run_ms')
local settled_ms = tonumber(known[5]) + tonumber(ARGV[2])
local left = string.format('%.0f', math.max(settled_ms - now_ms, 0))
return { known[1] or '', known[2] or '0', known[3] or '0', known[4] or '0', left }
