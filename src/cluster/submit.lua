-- Several submissions of one node, each: dropped as a repeat, refused, or numbered and appended to the stream.
-- Redis runs it atomically: no number is ever taken without its entry, and nobody sees half of it.
--
-- KEYS[1]  the ledger's prefix; every key of the ledger begins with it (and carries its hash tag)
-- ARGV     generation, the most entries that may be unstored, seconds that claims live, then eight per submission:
--          kind, a, b, name, slice, known, index, entry
--   'G'    a: group, b: its version, index: the sender's place among the members by user id, from 1
--   'D'    a: sender, b: recipient (8 bytes each)
--   'C'    a: group, b: its version before the change, name: the members after it, by user id (8 bytes each)
--
-- Replies 'GEN' if the generation is another one. Else one string per submission, and last how many entries there
-- are: 'A' appended · 'B' the version is another one · 'F' too much is unstored · 'R' and what is known of it: a
-- repeat.
--
-- Seqs are kept in one string, six bytes a user, at the user's slot. Slots are given out in the order in which users
-- are first seen, so a group's members mostly lie side by side, and one GETRANGE and one SETRANGE number them all.

local call = redis.call
local root = KEYS[1]
local generation = ARGV[1]
local state = root .. 'state'
local now = call('HMGET', state, 'generation', 'count', 'stored')
if now[1] ~= generation then return 'GEN' end
local count, stored = tonumber(now[2]), tonumber(now[3])
local unstored_max, claim_s = tonumber(ARGV[2]), ARGV[3]
local prefix = root .. generation .. ':'
local number = string.match(generation, '^%d+')
-- What a user who was never seen counts from: the generations before may have given out numbers up to here.
local first = (tonumber(number) - 1) * 1048576
local seqs, users, groups, stream = prefix .. 'seqs', prefix .. 'users', prefix .. 'groups', prefix .. 'stream'

local WIDTH = 6
-- A run at least so long is read and written as a range; single users are numbered together by one BITFIELD.
local RANGE_MIN = 4
-- What Lua's stack takes at once.
local PIECE = 1000

local formats = {}
local function format_of(length)
  local format = formats[length]
  if not format then
    format = '>' .. string.rep('I6', length)
    formats[length] = format
  end
  return format
end

local function number_range(start, length)
  local bytes = call('GETRANGE', seqs, start * WIDTH, (start + length) * WIDTH - 1)
  if #bytes < length * WIDTH then bytes = bytes .. string.rep('\0', length * WIDTH - #bytes) end
  local format = format_of(length)
  local values = { struct.unpack(format, bytes) }
  for i = 1, length do values[i] = values[i] + 1 end
  local numbered = struct.pack(format, unpack(values, 1, length))
  call('SETRANGE', seqs, start * WIDTH, numbered)
  return numbered
end

-- `runs` is start (4 bytes) and length (2 bytes) of each run of slots, from byte `at` on.
local function number_runs(runs, at)
  local rows, single, places = {}, { 'BITFIELD', seqs }, {}
  while at <= #runs do
    local start, length
    start, length, at = struct.unpack('>I4I2', runs, at)
    if length >= RANGE_MIN then
      while length > 0 do
        local piece = math.min(length, PIECE)
        rows[#rows + 1] = number_range(start, piece)
        start, length = start + piece, length - piece
      end
    else
      for slot = start, start + length - 1 do
        local n = #single
        single[n + 1], single[n + 2], single[n + 3], single[n + 4] = 'INCRBY', 'u48', '#' .. slot, '1'
        rows[#rows + 1] = ''
        places[#places + 1] = #rows
        if #places == PIECE then
          for i, value in ipairs(call(unpack(single))) do rows[places[i]] = struct.pack('>I6', value) end
          single, places = { 'BITFIELD', seqs }, {}
        end
      end
    end
  end
  if #places > 0 then
    for i, value in ipairs(call(unpack(single))) do rows[places[i]] = struct.pack('>I6', value) end
  end
  return table.concat(rows)
end

-- The slots of users (8 bytes each, one behind the other), as runs; new ones for those who have none.
local function slots_of(list)
  local runs, start, length = {}, nil, 0
  local next_slot = call('HLEN', users)
  for from = 1, #list, 8 * PIECE do
    local piece = {}
    for at = from, math.min(#list, from + 8 * PIECE - 1), 8 do piece[#piece + 1] = list:sub(at, at + 7) end
    local known = call('HMGET', users, unpack(piece))
    local new = {}
    for i, user in ipairs(piece) do
      local slot = known[i] and tonumber(known[i])
      if not slot then
        slot = next_slot
        next_slot = next_slot + 1
        new[#new + 1] = user
        new[#new + 1] = slot
        if first > 0 then call('SETRANGE', seqs, slot * WIDTH, struct.pack('>I6', first)) end
      end
      if start and slot == start + length and length < 65535 then
        length = length + 1
      else
        if start then runs[#runs + 1] = struct.pack('>I4I2', start, length) end
        start, length = slot, 1
      end
    end
    if #new > 0 then call('HSET', users, unpack(new)) end
  end
  if start then runs[#runs + 1] = struct.pack('>I4I2', start, length) end
  return table.concat(runs)
end

local function append(entry, rows)
  count = count + 1
  call('XADD', stream, number .. '-' .. string.format('%.0f', count), 'e', entry, 'r', rows)
end

local function claimed(name, slice)
  return call('HGET', prefix .. 'c:' .. slice, name)
end

local function claim(name, slice, known, seq)
  local key = prefix .. 'c:' .. slice
  call('HSET', key, name, known .. seq)
  call('EXPIRE', key, claim_s)
end

local replies = {}
for at = 4, #ARGV, 8 do
  local kind, a, b, name, slice, known, index, entry = unpack(ARGV, at, at + 7)
  local reply
  local before = kind ~= 'C' and claimed(name, slice)
  if before then
    reply = 'R' .. before
  elseif count - stored >= unstored_max then
    reply = 'F'
  elseif kind == 'G' then
    local roster = call('HGET', groups, a)
    if not roster or struct.unpack('>I4', roster) ~= tonumber(b) then
      reply = 'B'
    else
      local rows = number_runs(roster, 5)
      local place = (tonumber(index) - 1) * WIDTH
      claim(name, slice, known, rows:sub(place + 1, place + WIDTH))
      append(entry, rows)
      reply = 'A'
    end
  elseif kind == 'D' then
    local pair = a == b and a or a .. b
    local rows = number_runs(slots_of(pair), 1)
    claim(name, slice, known, rows:sub(1, WIDTH))
    append(entry, rows)
    reply = 'A'
  else
    local roster = call('HGET', groups, a)
    local version = roster and struct.unpack('>I4', roster) or 0
    if version ~= tonumber(b) then
      reply = 'B'
    else
      if name == '' then
        call('HDEL', groups, a)
      else
        call('HSET', groups, a, struct.pack('>I4', version + 1) .. slots_of(name))
      end
      append(entry, '')
      reply = 'A'
    end
  end
  replies[#replies + 1] = reply
end
call('HSET', state, 'count', string.format('%.0f', count))
replies[#replies + 1] = string.format('%.0f', count)
return replies
