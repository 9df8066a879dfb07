-- What Redis has of the ledger, and whether every node has had the time to look at it.
--
-- A Redis that was started again may have less than it had, and a node that has read more must be able to say so before
-- another goes on with what there is. So for a while after a start nobody goes on; and if no node was there all the
-- time, which could confirm that it has all it had, nobody knows.
--
-- KEYS[1]  a bucket's prefix
-- ARGV     what Redis calls its own process, how long nodes take to look (ms); and of a node that was there before
--          Redis was started, the generation it follows and the last entry of the ledger that it has read; otherwise ''
--          and 0
--
-- Replies generation, last entry, floor, the second in which the generation was made, how long it is still to be left
-- alone (ms), and of the first bucket: how many buckets there are, how many entries are ordered, and of each bucket; then
-- the highest number of a generation that was ever begun here, 1 if a node has confirmed it since Redis was started,
-- the time (ms), and for how many seconds claims live.

local call = redis.call
local state = KEYS[1] .. 'state'
local now = call('TIME')
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)
if call('HGET', state, 'run') ~= ARGV[1] then
  -- A Redis without memory takes what needs none, and then the rest.
  call('HDEL', state, 'nothing')
  call('HSET', state, 'run', ARGV[1], 'run_ms', string.format('%.0f', now_ms))
end
local known = call('HMGET', state, 'generation', 'count', 'floor', 'since_s', 'run_ms', 'buckets', 'order', 'taken', 'seeding',
                   'confirmed', 'names_s')
local entries = known[6] and known[6] ~= '1' and known[7] or known[2]
if ARGV[3] ~= '' and ARGV[3] == known[1] and tonumber(ARGV[4]) <= tonumber(entries) then
  call('HSET', state, 'confirmed', ARGV[1])
  known[10] = ARGV[1]
end
local settled_ms = tonumber(known[5]) + tonumber(ARGV[2])
local left = string.format('%.0f', math.max(settled_ms - now_ms, 0))
local function number_of(name) return tonumber(string.match(name or '', '^%d+') or '0') end
local highest = math.max(number_of(known[1]), number_of(known[9]))
return { known[1] or '', known[2] or '0', known[3] or '0', known[4] or '0', left, known[6] or '1', known[7] or '0',
         known[8] or '', string.format('%.0f', highest), known[10] == ARGV[1] and '1' or '0',
         string.format('%.0f', now_ms), known[11] or '900' }
