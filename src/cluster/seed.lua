-- Makes a new generation of the ledger out of what a node knows, step by step. Nobody sees it before the last one.
--
-- KEYS[1]  the ledger's prefix
-- ARGV     step, the new generation, then what the step takes:
--   'begin'   the generation that is replaced, or '' if there is none. Refused while another node is at it
--   'users'   pairs of user (8 bytes) and seq (6 bytes); in the order in which they are to lie side by side
--   'group'   triples of group, version and members by user id (8 bytes each)
--   'finish'  how many entries there are said to be; everything of the generation before goes
--
-- Replies 'OK', 'BUSY' (another node seeds, or seeded a moment ago: look again), or 'GEN' (the generation is another).

local call = redis.call
local root = KEYS[1]
local state = root .. 'state'
local step, generation = ARGV[1], ARGV[2]
local prefix = root .. generation .. ':'
local seqs, users, groups, stream = prefix .. 'seqs', prefix .. 'users', prefix .. 'groups', prefix .. 'stream'

-- So long may a step take to come; then another node may begin.
local PATIENCE_S = 10

local now_s = tonumber(call('TIME')[1])
local current = call('HMGET', state, 'generation', 'seeding', 'seeding_s')

if step == 'begin' then
  if (current[1] or '') ~= ARGV[3] then return 'GEN' end
  if current[2] and current[2] ~= '' and now_s - tonumber(current[3]) < PATIENCE_S then return 'BUSY' end
  call('HSET', state, 'seeding', generation, 'seeding_s', now_s)
  return 'OK'
end
if current[2] ~= generation then return 'BUSY' end
call('HSET', state, 'seeding_s', now_s)

if step == 'users' then
  local slot = call('HLEN', users)
  local from, new, numbers = slot, {}, {}
  for at = 3, #ARGV, 2 do
    new[#new + 1] = ARGV[at]
    new[#new + 1] = slot
    numbers[#numbers + 1] = ARGV[at + 1]
    slot = slot + 1
  end
  if #new > 0 then
    call('HSET', users, unpack(new))
    call('SETRANGE', seqs, from * 6, table.concat(numbers))
  end
elseif step == 'group' then
  for at = 3, #ARGV, 3 do
    local members, runs, start, length = ARGV[at + 2], {}, nil, 0
    local next_slot = call('HLEN', users)
    for byte = 1, #members, 8 do
      local user = members:sub(byte, byte + 7)
      local slot = tonumber(call('HGET', users, user) or '')
      if not slot then
        slot = next_slot
        next_slot = next_slot + 1
        call('HSET', users, user, slot)
        call('SETRANGE', seqs, slot * 6, struct.pack('>I6', tonumber(string.match(generation, '^%d+')) * 1048576))
      end
      if start and slot == start + length and length < 65535 then
        length = length + 1
      else
        if start then runs[#runs + 1] = struct.pack('>I4I2', start, length) end
        start, length = slot, 1
      end
    end
    if start then runs[#runs + 1] = struct.pack('>I4I2', start, length) end
    call('HSET', groups, ARGV[at], struct.pack('>I4', tonumber(ARGV[at + 1])) .. table.concat(runs))
  end
elseif step == 'finish' then
  if current[1] and current[1] ~= '' then
    local old = root .. current[1] .. ':'
    call('UNLINK', old .. 'seqs', old .. 'users', old .. 'groups', old .. 'stream')
  end
  call('HSET', state, 'generation', generation, 'count', ARGV[3], 'base', ARGV[3], 'stored', ARGV[3],
       'since_s', now_s, 'seeding', '')
end
return 'OK'
