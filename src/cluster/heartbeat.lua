-- A node's heartbeat: renews its lease, and the right to write the store; says how far the database is; cuts off what
-- every node has read and the database has.
--
-- KEYS[1]  the ledger's prefix
-- ARGV     node, token, lease in ms, generation or '', the last entry read, the last entry stored, entries kept
--
-- Replies {'TAKEN'} if another process has the node's id, else {'OK', 1 if this node's store is to write else 0,
-- generation, nodes alive...}.

local call = redis.call
local root = KEYS[1]
local node, token, lease = ARGV[1], ARGV[2], ARGV[3]
local mine = root .. 'node:' .. node

local holder = call('HGET', mine, 'token')
if holder and holder ~= token then return { 'TAKEN' } end
call('HSET', mine, 'token', token, 'read', ARGV[5])
call('PEXPIRE', mine, lease)
call('SADD', root .. 'nodes', node)

local alive, read = {}, tonumber(ARGV[5])
for _, other in ipairs(call('SMEMBERS', root .. 'nodes')) do
  local at = call('HGET', root .. 'node:' .. other, 'read')
  if at then
    alive[#alive + 1] = other
    read = math.min(read, tonumber(at))
  else
    call('SREM', root .. 'nodes', other)
  end
end

local writer = call('GET', root .. 'writer')
if not writer or writer == token then
  call('SET', root .. 'writer', token, 'PX', lease)
  writer = token
end

local state = root .. 'state'
local now = call('HMGET', state, 'generation', 'stored', 'count')
if now[1] and now[1] == ARGV[4] then
  local stored = tonumber(ARGV[6])
  if stored > tonumber(now[2]) and stored <= tonumber(now[3]) then
    call('HSET', state, 'stored', ARGV[6])
  else
    stored = tonumber(now[2])
  end
  local cut = math.min(stored, read, tonumber(now[3]) - tonumber(ARGV[7]))
  local id = string.match(now[1], '^%d+') .. '-' .. string.format('%.0f', math.max(cut, 0) + 1)
  call('XTRIM', root .. now[1] .. ':stream', 'MINID', '~', id)
end

local reply = { 'OK', writer == token and 1 or 0, now[1] or '' }
for _, other in ipairs(alive) do reply[#reply + 1] = other end
return reply
