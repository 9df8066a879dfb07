-- A node's heartbeat: renews its lease, and the right to write the store; says how far the database is; cuts off what
-- every node has read and the database has.
--
-- KEYS[1]  the prefix of the first bucket
-- ARGV     node, token, lease in ms, generation or '', the last entry read, the last entry stored, entries kept, buckets
--
-- Replies {'TAKEN'} if another process has the node's id, {'BUCKETS', how many} if the nodes that are there have another
-- number of buckets, else {'OK', 1 if this node's store is to write else 0, generation, what of each bucket is stored,
-- what of each bucket nobody needs, nodes alive...}; with one bucket the two about buckets are empty, and it is cut here.

local call = redis.call
local root = KEYS[1]
local node, token, lease, buckets = ARGV[1], ARGV[2], ARGV[3], ARGV[8]
local mine = root .. 'node:' .. node

local holder = call('HGET', mine, 'token')
if holder and holder ~= token then return { 'TAKEN' } end

local alive, read = {}, tonumber(ARGV[5])
for _, other in ipairs(call('SMEMBERS', root .. 'nodes')) do
  local at = call('HMGET', root .. 'node:' .. other, 'read', 'buckets')
  if other == node then
    -- Told below.
  elseif at[1] then
    if not holder and (at[2] or '1') ~= buckets then return { 'BUCKETS', at[2] or '1' } end
    alive[#alive + 1] = other
    read = math.min(read, tonumber(at[1]))
  else
    call('SREM', root .. 'nodes', other)
  end
end
call('HSET', mine, 'token', token, 'read', ARGV[5], 'buckets', buckets)
call('PEXPIRE', mine, lease)
call('SADD', root .. 'nodes', node)
alive[#alive + 1] = node

local writer = call('GET', root .. 'writer')
if not writer or writer == token then
  call('SET', root .. 'writer', token, 'PX', lease)
  writer = token
end

local state = root .. 'state'
local is_split = buckets ~= '1'
local its = is_split and { 'order_stored', 'order', 'order' } or { 'stored', 'count', 'stream' }
local now = call('HMGET', state, 'generation', its[1], its[2])
local stored_of_each, cut_of_each = '', ''
if now[1] and now[1] == ARGV[4] then
  local stored = tonumber(ARGV[6])
  if stored > tonumber(now[2]) and stored <= tonumber(now[3]) then
    call('HSET', state, its[1], ARGV[6])
  else
    stored = tonumber(now[2])
  end
  local cut = math.max(math.min(stored, read, tonumber(now[3]) - tonumber(ARGV[7])), 0)
  if is_split and writer == token then
    local _, each = order_at(root, now[1], stored)
    stored_of_each = words(each)
    _, each = order_at(root, now[1], cut)
    cut_of_each = words(each)
  end
  call('XTRIM', root .. now[1] .. ':' .. its[3], 'MINID', '~', string.match(now[1], '^%d+') .. '-' .. text(cut + 1))
end

local reply = { 'OK', writer == token and 1 or 0, now[1] or '', stored_of_each, cut_of_each }
for _, other in ipairs(alive) do reply[#reply + 1] = other end
return reply
