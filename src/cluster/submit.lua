-- Several submissions of one node, each: dropped as a repeat, refused, or appended to the stream.
-- Redis runs it atomically: a name is never claimed without its entry, and nobody sees half of it. It numbers no rows:
-- the stream's order is the numbering, and every node does the sum by itself.
--
-- KEYS[1]  the ledger's prefix; every key of the ledger begins with it (and carries its hash tag)
-- ARGV     generation, the most entries that may be unstored, seconds that claims live, and of these the last ones that
--          are not relied on, as clocks differ; then eight per submission:
--          kind, group, version, name, slice, known, since, entry; since: nobody used the name before this second, or
--          the store would have it
--   'G'    a message to a group at this version
--   'D'    a message from one user to another
--   'C'    a change of a group that has this version before it
--   'E'    the same, after which nobody is in it
--
-- Replies 'GEN' if the generation is another one. Else one string per submission, and last how many entries there
-- are: 'A' appended · 'B' the version is another one · 'F' too much is unstored · 'O' the name may have been used and
-- forgotten since: the store must be asked · 'R' and what is known of it, with the number of its entry: a repeat.

local call = redis.call
local root = KEYS[1]
local generation = ARGV[1]
local state = root .. 'state'
local now = call('HMGET', state, 'generation', 'count', 'stored')
if now[1] ~= generation then return 'GEN' end
local count, stored = tonumber(now[2]), tonumber(now[3])
local unstored_max, claim_s = tonumber(ARGV[2]), ARGV[3]
-- What was named before may be forgotten.
local known_since_s = tonumber(call('TIME')[1]) - tonumber(claim_s) + tonumber(ARGV[4])
local prefix = root .. generation .. ':'
local number = string.match(generation, '^%d+')
local groups, stream = prefix .. 'groups', prefix .. 'stream'

local function append(entry)
  count = count + 1
  local text = string.format('%.0f', count)
  call('XADD', stream, number .. '-' .. text, 'e', entry)
  return text
end

local replies, has_old, renewed = {}, false, {}
for at = 5, #ARGV, 8 do
  local kind, group, version, name, slice, known, since, entry = unpack(ARGV, at, at + 7)
  local is_message = kind == 'G' or kind == 'D'
  local claims = prefix .. 'c:' .. slice
  local before = is_message and call('HGET', claims, name)
  local reply = 'A'
  if before then
    reply = 'R' .. before
  elseif is_message and (has_old or tonumber(since) <= known_since_s) then
    -- What is behind it may be of the same sender, and stays behind it.
    has_old = true
    reply = 'O'
  elseif count - stored >= unstored_max then
    reply = 'F'
  elseif kind ~= 'D' and (call('HGET', groups, group) or '0') ~= version then
    reply = 'B'
  else
    local entry_number = append(entry)
    if is_message then
      call('HSET', claims, name, known .. entry_number)
      -- One slice's claims live as long as its last one: most of a call are of one slice.
      if not renewed[claims] then call('EXPIRE', claims, claim_s) end
      renewed[claims] = true
    elseif kind == 'E' then
      call('HDEL', groups, group)
    else
      call('HSET', groups, group, string.format('%.0f', tonumber(version) + 1))
    end
  end
  replies[#replies + 1] = reply
end
call('HSET', state, 'count', string.format('%.0f', count))
replies[#replies + 1] = string.format('%.0f', count)
return replies
