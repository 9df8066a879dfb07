-- What Redis has of the ledger, and whether every node has had the time to look at it.
--
-- A Redis that was started again may have less than it had, and a node that has read more must be able to say so before
-- another goes on with what there is. So for a while after a start nobody goes on; and if no node was there all the
-- time, which could vouch that it has all it had, nobody knows.
--
-- KEYS[1]  the ledger's prefix
-- ARGV     what Redis calls its own process, how long nodes take to look (ms); and of a node that was there before
--          Redis was started, the generation it follows and the last entry it has read; otherwise '' and 0
--
-- Replies generation, last entry, floor, the second in which the generation was made, how long it is still to be left
-- alone (ms), and 1 if a node has vouched for it since Redis was started.

local call = redis.call
local state = KEYS[1] .. 'state'
local now = call('TIME')
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)
if call('HGET', state, 'run') ~= ARGV[1] then
  call('HSET', state, 'run', ARGV[1], 'run_ms', string.format('%.0f', now_ms))
end
local known = call('HMGET', state, 'generation', 'count', 'floor', 'since_s', 'run_ms', 'vouched')
if ARGV[3] ~= '' and ARGV[3] == known[1] and tonumber(ARGV[4]) <= tonumber(known[2]) then
  call('HSET', state, 'vouched', ARGV[1])
  known[6] = ARGV[1]
end
local settled_ms = tonumber(known[5]) + tonumber(ARGV[2])
local left = string.format('%.0f', math.max(settled_ms - now_ms, 0))
return { known[1] or '', known[2] or '0', known[3] or '0', known[4] or '0', left, known[6] == ARGV[1] and '1' or '0' }
