-- Compares how nodes have numbered a window of the stream's entries. Each tells what it has come to; what most have come to
-- counts, and where they are as many, what the node has whose store writes.
--
-- KEYS[1]  the ledger's prefix
-- ARGV     generation, window, the digest of its rows, windows kept, node, '!' if its store writes, else ''
--
-- Replies 'GEN' if the generation is another one, 'OTHER' if this node has told another digest than counts, of this window
-- or of one shortly before, on which others have told theirs since; else 'OK' (one that is no longer kept is not compared).

local call = redis.call
local root = KEYS[1]
local generation, window, digest, node, writes = ARGV[1], ARGV[2], ARGV[3], ARGV[5], ARGV[6]
if call('HGET', root .. 'state', 'generation') ~= generation then return 'GEN' end
local windows = root .. generation .. ':windows'
local newest, kept = tonumber(call('HGET', windows, 'newest') or '0'), tonumber(ARGV[4])
local number = tonumber(window)
if number <= newest - kept then return 'OK' end

-- So many windows before this one are looked at again.
local AGAIN = 8

-- A window has words: a node, a digest, and perhaps the mark of the one whose store writes.
local function is_other(words)
  local votes, mine, marked = {}, nil, nil
  for its_node, its_digest, mark in string.gmatch(words, '(%d+)=(%x+)(!?)') do
    votes[its_digest] = (votes[its_digest] or 0) + 1
    if its_node == node then mine = its_digest end
    if mark == '!' then marked = its_digest end
  end
  if not mine then return false end
  for other, count in pairs(votes) do
    if other ~= mine and (count > votes[mine] or count == votes[mine] and other == marked) then return true end
  end
  return false
end

local words = call('HGET', windows, window) or ''
-- Told again, behind a lost session: as it is.
if not string.find(' ' .. words, ' ' .. node .. '=', 1, true) then
  words = words .. (words == '' and '' or ' ') .. node .. '=' .. digest .. writes
  call('HSET', windows, window, words)
end
if number > newest then
  call('HSET', windows, 'newest', window)
  local gone = {}
  for old = math.max(newest - kept + 1, number - kept - 1000, 0), number - kept do
    gone[#gone + 1] = string.format('%.0f', old)
  end
  if #gone > 0 then call('HDEL', windows, unpack(gone)) end
end
for before = number, math.max(number - AGAIN, 0), -1 do
  if is_other(before == number and words or call('HGET', windows, string.format('%.0f', before)) or '') then
    return 'OTHER'
  end
end
return 'OK'
