-- Names of messages whose conversation lies in another bucket than their sender's names: claimed here first, so that one
-- name is not used for two conversations. Which message has the name is known there.
--
-- KEYS[1]  the prefix of the sender's bucket
-- ARGV     generation, seconds that claims live, then three per message: slice, name, and what is reserved: message,
--          digest, '@' and the conversation's bucket
--
-- Replies 'GEN' if the generation is another one, else one word per message: 'A' the name is this message's (perhaps
-- already) · 'U' it is used for something else.

local call = redis.call
local root, generation = KEYS[1], ARGV[1]
if call('HGET', root .. 'state', 'generation') ~= generation then return 'GEN' end
local replies, slices = {}, {}
for at = 3, #ARGV, 3 do
  local slice, name, reserved = unpack(ARGV, at, at + 2)
  local claims = root .. generation .. ':c:' .. slice
  local before = call('HGET', claims, name)
  if not before then call('HSET', claims, name, reserved) end
  -- Behind the message's number: of a repeat it is another one.
  local is_mine = not before or string.sub(before, 9) == string.sub(reserved, 9)
  if is_mine then slices[claims] = true end
  replies[#replies + 1] = is_mine and 'A' or 'U'
end
for claims in pairs(slices) do call('EXPIRE', claims, ARGV[2]) end
return replies
