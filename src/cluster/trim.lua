-- What the database and every node have of a bucket.
--
-- KEYS[1]  the bucket's prefix
-- ARGV     generation, its last entry that is stored, its last entry that nobody needs, how exactly it is cut: '~' or '='
--
-- Replies 'GEN' if the generation is another one, else 'OK'.

local call = redis.call
local state = KEYS[1] .. 'state'
local now = call('HMGET', state, 'generation', 'stored', 'count')
if now[1] ~= ARGV[1] then return 'GEN' end
local stored = tonumber(ARGV[2])
-- A Redis without memory takes what makes room, and then the rest.
local id = string.match(now[1], '^%d+') .. '-' .. string.format('%.0f', tonumber(ARGV[3]) + 1)
call('XTRIM', KEYS[1] .. now[1] .. ':stream', 'MINID', ARGV[4], id)
if stored > tonumber(now[2]) and stored <= tonumber(now[3]) then call('HSET', state, 'stored', ARGV[2]) end
return 'OK'
