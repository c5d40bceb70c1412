-- Looks at the first jobs of a shelf.
-- KEYS[1], ARGV[1] base, ARGV[2] node: see clock.lua
-- ARGV[3] queue (see jobs.lua), ARGV[4] shelf: `ready`, `delayed`, `in_flight` or `dead`, ARGV[5] how many
-- Result: { number, { job, deliveries, ordering key, ms of the publish, position or '', blob }... }
local q, shelf, most = ARGV[3], ARGV[4], tonumber(ARGV[5])
local jobs = jobs_of(base, now, '0')
local time, found = string.format('%.0f', now), { 0 }
local field, key = jobs.field, jobs.key

local function add(id, deliveries, fields)
  if #found <= most then
    found[#found + 1] = { id, deliveries, field(fields, 'k'), field(fields, 't'), field(fields, 'p'), field(fields, 'b') }
  end
end

-- Jobs that were handed out before.
local function add_due(letter, from, to)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', key(letter, q), from, to, 'LIMIT', 0, most)) do
    local fields, pending = jobs.read(q, id), jobs.pending(q, id)
    if fields and pending then
      add(id, pending[4], fields)
    end
  end
end

if shelf == 'dead' then
  for _, entry in ipairs(redis.call('XRANGE', key('jx', q), '-', '+', 'COUNT', most)) do
    add(entry[1], tonumber(field(entry[2], 'a')), entry[2])
  end
elseif shelf == 'in_flight' then
  add_due('jt', '(' .. time, '(inf')
elseif shelf == 'delayed' then
  add_due('jr', '(' .. time, '(inf')
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', key('jd', q), '-inf', '(inf', 'LIMIT', 0, most)) do
    local colon = string.find(member, ':', 1, true)
    add('d' .. string.sub(member, 1, colon - 1), 0, cmsgpack.unpack(string.sub(member, colon + 1)))
  end
else
  add_due('jr', '-inf', time)
  add_due('jt', '-inf', time)
  local groups = redis.pcall('XINFO', 'GROUPS', key('j', q))
  local last = '-'
  for _, group in ipairs(groups.err and {} or groups) do
    for at = 1, #group, 2 do
      if group[at] == 'last-delivered-id' then
        last = '(' .. group[at + 1]
      end
    end
  end
  for _, entry in ipairs(redis.call('XRANGE', key('j', q), last, '+', 'COUNT', most)) do
    add(entry[1], 0, entry[2])
  end
  -- Those that wait behind one of their key.
  for _, ordering_key in ipairs(#found <= most and redis.call('HKEYS', key('jk', q)) or {}) do
    for number, packed in ipairs(redis.call('LRANGE', key('jp', q) .. '/' .. ordering_key, 0, most - 1)) do
      add('p' .. number, 0, cmsgpack.unpack(packed))
    end
    if #found > most then
      break
    end
  end
end
found[1] = #found - 1
return found
