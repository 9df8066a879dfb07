-- How far each bucket was at an entry of the whole ledger.
--
-- KEYS[1]  the prefix of the first bucket
-- ARGV     generation, entry
--
-- Replies 'GEN' if the generation is another one, else an entry and each bucket's there: those asked for, or, if the
-- order was cut behind them, those at which it begins.

local root, generation = KEYS[1], ARGV[1]
if redis.call('HGET', root .. 'state', 'generation') ~= generation then return 'GEN' end
local entry, buckets = order_at(root, generation, tonumber(ARGV[2]))
return text(entry) .. ' ' .. words(buckets)
