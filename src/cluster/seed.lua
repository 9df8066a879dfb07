-- Makes a new generation of the ledger out of what a node knows, step by step. Nobody sees it before the last one, which
-- finishes the first bucket: until then the buckets have different generations, or the one that is replaced.
--
-- KEYS[1]  a bucket's prefix
-- ARGV     step, the new generation, then what the step takes:
--   'begin'   in the first bucket: the generation that is replaced, or '' if there is none, and the node. Refused while
--             another node is at it
--   'join'    in another bucket: nothing more. Refused if a later generation was begun or made there
--   'groups'  pairs of group and version
--   'finish'  how many entries there are said to be, what every user's rows are numbered above, how many buckets there
--             are, and for how many seconds claims live; everything of the generation before goes
--
-- Replies 'OK', 'BUSY' (another node seeds, or seeded a moment ago: look again), or 'GEN' (the generation is another).

local call = redis.call
local root = KEYS[1]
local state = root .. 'state'
local step, generation = ARGV[1], ARGV[2]

-- So long may a step take to come; then another node may begin.
local PATIENCE_S = 10

local function number_of(name) return tonumber(string.match(name or '', '^%d+') or '0') end

local now_s = tonumber(call('TIME')[1])
local current = call('HMGET', state, 'generation', 'seeding', 'seeding_s', 'seeder')

if step == 'begin' then
  if (current[1] or '') ~= ARGV[3] then return 'GEN' end
  local is_seeding = current[2] and current[2] ~= '' and current[4] ~= ARGV[4]
  if is_seeding and now_s - tonumber(current[3]) < PATIENCE_S then return 'BUSY' end
  call('HSET', state, 'seeding', generation, 'seeding_s', now_s, 'seeder', ARGV[4])
  return 'OK'
end
if step == 'join' then
  -- A number is one node's to make, once.
  if math.max(number_of(current[1]), number_of(current[2])) >= number_of(generation) then return 'GEN' end
  if current[2] and current[2] ~= '' then call('UNLINK', root .. current[2] .. ':groups') end
  call('HSET', state, 'seeding', generation, 'seeding_s', now_s)
  return 'OK'
end
if current[2] ~= generation then return 'BUSY' end
call('HSET', state, 'seeding_s', now_s)

if step == 'groups' then
  call('HSET', root .. generation .. ':groups', unpack(ARGV, 3))
elseif step == 'finish' then
  if current[1] and current[1] ~= '' then
    local old = root .. current[1] .. ':'
    call('UNLINK', old .. 'groups', old .. 'stream', old .. 'windows', old .. 'order')
  end
  local taken = string.rep(ARGV[3] .. ' ', tonumber(ARGV[5]) - 1) .. ARGV[3]
  call('HSET', state, 'generation', generation, 'count', ARGV[3], 'stored', ARGV[3], 'floor', ARGV[4],
       'since_s', now_s, 'seeding', '', 'run_ms', '0', 'buckets', ARGV[5], 'order', ARGV[3], 'order_stored', ARGV[3],
       'taken', taken, 'names_s', ARGV[6], 'confirmed', call('HGET', state, 'run') or '')
end
return 'OK'
