-- Put before other scripts: how far each bucket was at an entry of the whole ledger.

-- A number without an exponent.
local function text(number) return string.format('%.0f', number) end

local function numbers(words)
  local all = {}
  for word in string.gmatch(words or '', '%S+') do all[#all + 1] = tonumber(word) end
  return all
end

-- Returns the entry of the whole ledger and each bucket's entry there: those asked for, or, where the order was cut
-- already, those at which it begins now. 'root' is the prefix of the first bucket.
local function order_at(root, generation, entry)
  local order = root .. generation .. ':order'
  local from = string.match(generation, '^%d+') .. '-' .. text(entry)
  local found = redis.call('XRANGE', order, from, '+', 'COUNT', 1)[1]
  if not found then
    local state = redis.call('HMGET', root .. 'state', 'order', 'taken')
    return tonumber(state[1] or '0'), numbers(state[2])
  end
  -- The bucket, its last entry here, and all buckets before it.
  local known = numbers(found[2][2])
  local bucket = table.remove(known, 1) + 1
  local to = table.remove(known, 1)
  local start = tonumber(string.match(found[1], '%-(%d+)$')) - (to - known[bucket])
  if start >= entry then return start, known end
  known[bucket] = known[bucket] + entry - start
  return entry, known
end

local function words(all)
  local texts = {}
  for at, number in ipairs(all) do texts[at] = text(number) end
  return table.concat(texts, ' ')
end
