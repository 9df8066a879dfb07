-- A node's heartbeat: renews its lease, and the right to write the store; says how far the database is; cuts off what
-- every node has read and the database has.
--
-- KEYS[1]  the prefix of the first bucket
-- ARGV     node, token, lease in ms, the last entry read, the last entry stored, entries kept, buckets, how exactly it
--          is cut: '~' or '=', the number of the node's session ('': it has none yet, and asks for it), and for how many
--          seconds claims live
--
-- Replies {'SESSION', number} to who asks for it, {'TAKEN', how often its lease was renewed} if another process has the
-- node's id, or a later session had it last, {'BUCKETS', how many} if the nodes that are there have another number of
-- buckets, {'NAMES', for how long} if their claims live for another time, else {'OK', 1 if this node's store is to write else 0, generation, what of each bucket is stored, what of each
-- bucket nobody needs, the time in ms, how many entries there are, 1 if there was memory for more when the call began else
-- 0, nodes alive...}; with one bucket the two about buckets are empty, and it is cut here.
--
-- A heartbeat may be executed long after its process has died. A session is numbered before it claims the node's id, and
-- once a later one has had that, no earlier one gets it.
--
-- A Redis without memory refuses what could take more, unless the script has written something by then: it is tried once
-- whether it does, what takes none comes next, and what makes room before all else.

local call = redis.call
local root = KEYS[1]
local node, token, lease, buckets, session, names_s = ARGV[1], ARGV[2], ARGV[3], ARGV[7], ARGV[9], ARGV[10]
local mine, sessions = root .. 'node:' .. node, root .. 'sessions'

local numbers = call('HMGET', sessions, node, node .. ':holds')
local given, holds = tonumber(numbers[1] or '0'), tonumber(numbers[2] or '0')
if session == '' then
  -- Microseconds; a higher number each time, also if the clock goes back or nothing is known any more of those before.
  local now = call('TIME')
  local number = text(math.max(now[1] * 1000000 + now[2], given + 1, holds + 1))
  call('HDEL', sessions, 'nothing')
  call('HSET', sessions, node, number)
  return { 'SESSION', number }
end

local holder = call('HGET', mine, 'token')
if tonumber(session) < holds or holder and holder ~= token then
  return { 'TAKEN', call('HGET', mine, 'renewed') or '0' }
end

local alive, read = {}, tonumber(ARGV[4])
for _, other in ipairs(call('SMEMBERS', root .. 'nodes')) do
  local at = call('HMGET', root .. 'node:' .. other, 'read', 'buckets', 'names_s')
  if other == node then
    -- Told below.
  elseif at[1] then
    if not holder and (at[2] or '1') ~= buckets then return { 'BUCKETS', at[2] or '1' } end
    if not holder and (at[3] or '900') ~= names_s then return { 'NAMES', at[3] or '900' } end
    alive[#alive + 1] = other
    read = math.min(read, tonumber(at[1]))
  else
    call('SREM', root .. 'nodes', other)
  end
end
alive[#alive + 1] = node
local tried = redis.pcall('SET', root .. 'memory', '', 'PX', lease)
local has_memory = not (tried.err and string.find(tried.err, 'OOM', 1, true))
call('PEXPIRE', mine, lease)

local writer = call('GET', root .. 'writer') or token
local state = root .. 'state'
local is_split = buckets ~= '1'
local its = is_split and { 'order_stored', 'order', 'order' } or { 'stored', 'count', 'stream' }
local now = call('HMGET', state, 'generation', its[1], its[2])
local stored_of_each, cut_of_each = '', ''
-- The database's position says of which generation it is.
local stored = tonumber(ARGV[5])
local number = now[1] and string.match(now[1], '^%d+')
if number and math.floor(stored / 2 ^ 40) == tonumber(number) then
  local is_more = stored > tonumber(now[2]) and stored <= tonumber(now[3])
  if not is_more then stored = tonumber(now[2]) end
  local cut = math.max(math.min(stored, read, tonumber(now[3]) - tonumber(ARGV[6])), 0)
  if is_split and writer == token then
    local _, each = order_at(root, now[1], stored)
    stored_of_each = words(each)
    _, each = order_at(root, now[1], cut)
    cut_of_each = words(each)
  end
  call('XTRIM', root .. now[1] .. ':' .. its[3], 'MINID', ARGV[8], number .. '-' .. text(cut + 1))
  if is_more then call('HSET', state, its[1], ARGV[5]) end
end
call('HSET', sessions, node .. ':holds', session)
call('HSET', mine, 'token', token, 'read', ARGV[4], 'buckets', buckets, 'names_s', names_s)
call('HINCRBY', mine, 'renewed', 1)
call('PEXPIRE', mine, lease)
call('SADD', root .. 'nodes', node)
if writer == token then call('SET', root .. 'writer', token, 'PX', lease) end

local time = call('TIME')
local time_ms = text(time[1] * 1000 + math.floor(time[2] / 1000))
local reply = { 'OK', writer == token and 1 or 0, now[1] or '', stored_of_each, cut_of_each, time_ms, now[3] or '0',
                has_memory and '1' or '0' }
for _, other in ipairs(alive) do reply[#reply + 1] = other end
return reply
