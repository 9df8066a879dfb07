-- Compares how nodes have numbered a window of the stream's entries: the first to tell is what the others must agree with.
--
-- KEYS[1]  the ledger's prefix
-- ARGV     generation, window, the digest of its rows, windows kept
--
-- Replies 'GEN' if the generation is another one, 'OTHER' if another node has told another digest of it, else 'OK' (one
-- that is no longer kept is not compared).

local call = redis.call
local root = KEYS[1]
local generation, window, digest = ARGV[1], ARGV[2], ARGV[3]
if call('HGET', root .. 'state', 'generation') ~= generation then return 'GEN' end
local windows = root .. generation .. ':windows'
local newest, kept = tonumber(call('HGET', windows, 'newest') or '0'), tonumber(ARGV[4])
local number = tonumber(window)
if number <= newest - kept then return 'OK' end
local first = call('HGET', windows, window)
if first then return first == digest and 'OK' or 'OTHER' end
call('HSET', windows, window, digest)
if number > newest then
  call('HSET', windows, 'newest', window)
  local gone = {}
  for old = math.max(newest - kept + 1, number - kept - 1000, 0), number - kept do
    gone[#gone + 1] = string.format('%.0f', old)
  end
  if #gone > 0 then call('HDEL', windows, unpack(gone)) end
end
return 'OK'
