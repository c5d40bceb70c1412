-- Removes jobs of a queue.
-- KEYS[1], ARGV[1] base, ARGV[2] node: see clock.lua
-- ARGV[3] greatest length of an inbox, ARGV[4] queue (see jobs.lua)
-- ARGV[5] shelf: `ready`, `delayed`, `in_flight`, `dead`, or `all`: the group ends, with all it has
-- ARGV[6] most jobs to remove; of `dead` and `all` everything goes at once
-- Result: { how many were removed, 1 if there may be more }
local q, shelf, most = ARGV[4], ARGV[5], tonumber(ARGV[6])
local jobs = jobs_of(base, now, ARGV[3])
local key, call = jobs.key, redis.call
if not jobs.exists(q) then
  return { 0, 0 }
end
jobs.open(q)
local time, removed = string.format('%.0f', now), 0

local function parked_keys()
  local keys = {}
  for _, ordering_key in ipairs(call('HKEYS', key('jk', q))) do
    keys[#keys + 1] = key('jp', q) .. '/' .. ordering_key
  end
  return keys
end

if shelf == 'dead' then
  removed = call('XTRIM', key('jx', q), 'MAXLEN', 0)
elseif shelf == 'all' then
  removed = jobs.length(q) + call('XLEN', key('jx', q))
  local group, channel = string.match(q, '^([^/]*)/(.*)$')
  local others = {}
  for other in string.gmatch(call('HGET', base .. 'jg', channel) or '', '%S+') do
    if other ~= group then
      others[#others + 1] = other
    end
  end
  for _, parked in ipairs(parked_keys()) do
    call('DEL', parked)
  end
  for _, letter in ipairs({ 'j', 'jt', 'jr', 'jd', 'jk', 'jx', 'jo', 'js', 'jc', 'jh' }) do
    call('DEL', key(letter, q))
  end
  if #others > 0 then
    call('HSET', base .. 'jg', channel, table.concat(others, ' '))
  else
    call('HDEL', base .. 'jg', channel)
  end
  call('ZREM', base .. 'jl', channel .. ' ' .. group)
else
  -- Those that wait for their turn go first: none is to come forward.
  if shelf == 'ready' then
    for _, ordering_key in ipairs(call('HKEYS', key('jk', q))) do
      local parked = key('jp', q) .. '/' .. ordering_key
      local waiting = call('LLEN', parked)
      if waiting > 0 then
        call('DEL', parked)
        call('HINCRBY', key('jk', q), ordering_key, -waiting)
        call('HINCRBY', key('js', q), 'parked', -waiting)
        removed = removed + waiting
      end
    end
  end
  local function remove_due(letter, from, to)
    for _, id in ipairs(call('ZRANGEBYSCORE', key(letter, q), from, to, 'LIMIT', 0, math.max(0, most - removed))) do
      jobs.remove(q, id, jobs.read(q, id))
      removed = removed + 1
    end
  end
  if shelf == 'in_flight' then
    remove_due('jt', '(' .. time, '(inf')
  elseif shelf == 'delayed' then
    remove_due('jr', '(' .. time, '(inf')
    local delayed = call('ZRANGEBYSCORE', key('jd', q), '-inf', '(inf', 'LIMIT', 0, math.max(0, most - removed))
    for _, member in ipairs(delayed) do
      local fields = cmsgpack.unpack(string.sub(member, string.find(member, ':', 1, true) + 1))
      local ordering_key = jobs.field(fields, 'k')
      if ordering_key ~= '' then
        jobs.advance(q, ordering_key)
      end
      removed = removed + call('ZREM', key('jd', q), member)
    end
  else
    remove_due('jr', '-inf', time)
    remove_due('jt', '-inf', time)
    -- What was never handed out: taken as by a consumer, so that it is not looked through again and again.
    redis.pcall('XGROUP', 'CREATE', key('j', q), 'c', '0', 'MKSTREAM')
    local left = math.max(0, most - removed)
    local read = left > 0 and redis.call('XREADGROUP', 'GROUP', 'c', '~', 'COUNT', left, 'STREAMS', key('j', q), '>')
    for _, entry in ipairs(read and read[1][2] or {}) do
      jobs.remove(q, entry[1], entry[2])
      removed = removed + 1
    end
  end
end
if jobs.freed > 0 then
  jobs.wake(q)
end
return { removed, (shelf ~= 'dead' and shelf ~= 'all' and removed >= most) and 1 or 0 }
