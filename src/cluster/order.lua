-- Puts entries of buckets into the order of the whole ledger, which lies in the first bucket: each bucket's behind those
-- of it that are ordered already. Any node may call it, as often as it likes: what is ordered stays as it is.
--
-- KEYS[1]  the prefix of the first bucket
-- ARGV     generation, then pairs: a bucket, and the last entry of it that is known to be there
--
-- While nobody has confirmed that the first bucket has all it had before its master was started, nothing is ordered: it
-- might be otherwise than it was.
--
-- An entry of the order is 'bucket last all buckets before it'; its id has the number of its last entry in the whole
-- ledger. Replies 'GEN' if the generation is another one, else how many entries are ordered, and of each bucket.

local root, generation = KEYS[1], ARGV[1]
local state = root .. 'state'
local now = redis.call('HMGET', state, 'generation', 'order', 'taken', 'run', 'confirmed')
if now[1] ~= generation then return 'GEN' end
if now[4] ~= now[5] then return now[2] .. ' ' .. now[3] end
local last, taken = tonumber(now[2]), numbers(now[3])
local number = string.match(generation, '^%d+')
local order = root .. generation .. ':order'
local before = last
for at = 2, #ARGV, 2 do
  local bucket, newest = tonumber(ARGV[at]) + 1, tonumber(ARGV[at + 1])
  if newest > taken[bucket] then
    last = last + newest - taken[bucket]
    redis.call('XADD', order, number .. '-' .. text(last), 'e', ARGV[at] .. ' ' .. ARGV[at + 1] .. ' ' .. words(taken))
    taken[bucket] = newest
  end
end
if last > before then redis.call('HSET', state, 'order', text(last), 'taken', words(taken)) end
return text(last) .. ' ' .. words(taken)
