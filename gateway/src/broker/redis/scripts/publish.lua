-- Publishes of one partition, in order: history entry, fan-out and idempotency record of each in one step.
-- KEYS[1] meta
-- ARGV[1] base, ARGV[2] replid (see meta.lua)
-- ARGV[3] greatest length of an inbox, ARGV[4] greatest size of the catalogue
-- ARGV[5] '1' to touch every key before the first write (Redis Cluster), else '0'
-- ARGV[6] number of settings, then 4 for each: history size; ms to keep the history; '1' to refresh that; ms to keep
--   an idempotency record
-- then 5 for each publish: channel; blob; epoch that the caller believes in ('' unknown, '-' no history); number of its
--   settings, from 1; idempotency record's name ('' none)
-- Result: { count, outcome... }; an outcome is the position `<epoch>-<offset>` ('' without history),
--   `=` and the first position for a repeated key, or `!` and the error: then this publish wrote nothing
--
-- An inbox gets one entry for all publications of a call (more only if they are long): a pair of fields for each,
-- `<position> <time ms> <channel>` and blob. The entry has the sequence of its first publication, and the stream's last
-- ID is set to that of its last one: sequences count publications.
local args, inbox_max, catalogue_max = ARGV, ARGV[3], tonumber(ARGV[4])
local SETTING, WIDTH = 4, 5
local FIRST = 7 + SETTING * tonumber(ARGV[6])
-- Bytes after which an inbox entry is written and another one begun: what one read answers is bounded.
local ENTRY_BYTES = 65536
-- By channel: who listens. By node: what its inbox is to get, the bytes of that, and whether it has no inbox any more.
local listeners, batches, bytes, gone = {}, {}, {}, {}
-- By node: why its inbox took nothing (out of memory, a replica); nil if none refused.
local refused
-- By number, as it is written: where a setting begins.
local settings = {}
-- Which prefixes some node is interested in; nil if none of the partition at all.
local live
local call, try, byte, kind = redis.call, redis.pcall, string.byte, type

local function each_prefix(channel, visit)
  visit('')
  for dot in string.gmatch(channel, '()%.') do
    visit(string.sub(channel, 1, dot - 1))
  end
  visit(channel)
end

local function find_live_prefixes()
  local key, names = base .. 'prefixes', {}
  if call('SCARD', key) == 0 then
    return
  end
  live = {}
  local function ask()
    for at, is in ipairs(call('SMISMEMBER', key, unpack(names))) do
      live[names[at]] = is == 1
    end
    names = {}
  end
  local function collect(prefix)
    if live[prefix] == nil then
      live[prefix] = false
      names[#names + 1] = prefix
      -- A call from Lua takes some thousand arguments.
      if #names == 1000 then
        ask()
      end
    end
  end
  for at = FIRST, #args, WIDTH do
    each_prefix(args[at], collect)
  end
  if #names > 0 then
    ask()
  end
end

-- The interests that concern a channel.
local function interests_of(channel)
  local interests = { 'i:' .. channel }
  if live then
    each_prefix(channel, function(prefix)
      if live[prefix] then
        interests[#interests + 1] = 'w:' .. prefix
      end
    end)
  end
  return interests
end

local function find_listeners(channel)
  local nodes
  if live then
    local keys = interests_of(channel)
    for n = 1, #keys do
      keys[n] = base .. keys[n]
    end
    nodes = call('SUNION', unpack(keys))
  else
    nodes = call('SMEMBERS', base .. 'i:' .. channel)
  end
  listeners[channel] = nodes
  return nodes
end

-- While a slot migrates Redis answers TRYAGAIN or ASK here, before anything is written.
local function touch()
  local keys, inboxes = { KEYS[1], base .. 'chans', base .. 'gone' }, {}
  for at = FIRST, #args, WIDTH do
    local channel, record = args[at], args[at + 4]
    if record ~= '' then
      keys[#keys + 1] = base .. 'id:' .. record
    end
    if not listeners[channel] then
      keys[#keys + 1] = base .. 'h:' .. channel
      for _, node in ipairs(find_listeners(channel)) do
        if not inboxes[node] then
          inboxes[node] = true
          inboxes[#inboxes + 1] = base .. 'in:' .. node
        end
      end
    end
  end
  call('EXISTS', unpack(keys))
  if #inboxes > 0 then
    call('EXISTS', unpack(inboxes))
  end
end

local function set_top(epoch)
  top = epoch
  redis.call('HSET', KEYS[1], 'top', num(top))
end

-- An epoch that no channel of the partition ever had.
local function new_epoch()
  if not raised then
    set_top(math.max(now, top + 1))
  end
  return num(top)
end

-- A channel that is listed already had a history that is gone: `lost` is the epoch up to which, if nobody noticed.
local function enlist(channel, lost)
  local chans = base .. 'chans'
  if redis.call('ZSCORE', chans, channel) then
    local noted = redis.call('HGET', base .. 'gone', channel)
    if not noted or string.sub(noted, 1, 1) == '+' then
      noted = lost
    end
    redis.call('HSET', base .. 'gone', channel, '+' .. string.match(noted, '^%d+'))
  elseif redis.call('ZCARD', chans) < catalogue_max then
    redis.call('ZADD', chans, 0, channel)
    redis.call('HDEL', base .. 'gone', channel)
  else
    redis.call('HSET', KEYS[1], 'forgot', num(top))
  end
end

-- The stream decides: its epoch if that may still be written, else a new one. The offset goes on if it lives.
local function append_slowly(key, channel, blob, size, keep, time)
  local last = redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1)[1]
  if not last then
    -- What has expired was written before the time that histories are kept.
    local lost = num(math.max(0, math.min(top, now - tonumber(keep))))
    local id = redis.call('XADD', key, new_epoch() .. '-1', 't', time, 'b', blob)
    enlist(channel, lost)
    return id
  end
  local epoch, offset = split(last[1])
  local id = epoch .. '-*'
  if tonumber(epoch) < floor_epoch then
    id = new_epoch() .. '-' .. num(offset + 1)
  elseif tonumber(epoch) > top then
    set_top(tonumber(epoch))
  end
  return redis.call('XADD', key, 'MAXLEN', '~', size, id, 't', time, 'b', blob)
end

-- XADD counts on in the epoch, answers nil without a stream and errs in a newer epoch; but in an older one it
-- would start this epoch at offset 0. That cannot be, as long as callers forget what they believe with the replid.
local function append(key, channel, blob, epoch, setting, time)
  local believed, size, refresh, id = tonumber(epoch), args[setting], args[setting + 2], nil
  if believed and floor_epoch <= believed and believed <= top then
    id = try('XADD', key, 'NOMKSTREAM', 'MAXLEN', '~', size, epoch .. '-*', 't', time, 'b', blob)
    if kind(id) == 'string' then
      local dash, digit = byte(id, -2, -1)
      if dash == 45 and digit == 48 then
        redis.call('XDEL', key, id)
        local last = redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1)[1]
        redis.call('XSETID', key, last[1])
        id = nil
      end
    end
  end
  if kind(id) ~= 'string' then
    id = append_slowly(key, channel, blob, size, args[setting + 1], time)
    refresh = '1'
  end
  if refresh == '1' then
    redis.call('PEXPIRE', key, args[setting + 1])
  end
  return id
end

-- Writes what a node's inbox is to get. A failure must not fail what is already stored: the node finds the hole. What is
-- not stored nobody would find (see `refuse_untaken`).
local function send(node)
  local batch, key = batches[node], base .. 'in:' .. node
  batches[node] = nil
  local id = try('XADD', key, 'NOMKSTREAM', 'MAXLEN', '~', inbox_max, node .. '-*', unpack(batch))
  if not id then
    gone[node] = true
  elseif kind(id) ~= 'string' then
    refused = refused or {}
    refused[node] = id
  elseif #batch > 2 then
    local _, first = split(id)
    local last, most = first + #batch / 2 - 1, tonumber(inbox_max)
    try('XSETID', key, node .. '-' .. num(last))
    -- MAXLEN counts entries, the limit counts publications: looked after eight times while an inbox fills.
    local step = math.ceil(most / 8)
    if last > most and math.floor(last / step) > math.floor((first - 1) / step) then
      try('XTRIM', key, 'MINID', '~', node .. '-' .. num(last - most + 1))
    end
  end
end

local function fan_out(nodes, head, blob)
  for n = 1, #nodes do
    local node = nodes[n]
    local batch = batches[node]
    if batch and bytes[node] + #blob > ENTRY_BYTES then
      send(node)
      batch = nil
    end
    if batch then
      local length = #batch
      batch[length + 1], batch[length + 2] = head, blob
      bytes[node] = bytes[node] + #blob
    elseif not gone[node] then
      batches[node], bytes[node] = { head, blob }, #blob
    end
  end
end

-- A publication without history that no inbox took has failed: its record must not say otherwise.
local function refuse_untaken(at, outcome)
  local refusal
  for _, node in ipairs(outcome == '' and listeners[args[at]] or {}) do
    if refused[node] then
      refusal = refused[node].err
    elseif not gone[node] then
      return outcome
    end
  end
  if not refusal then
    return outcome
  end
  if args[at + 4] ~= '' then
    call('DEL', base .. 'id:' .. args[at + 4])
  end
  return '!' .. refusal
end

-- A node without inbox is gone.
local function drop_gone()
  for channel, nodes in pairs(listeners) do
    for _, node in ipairs(nodes) do
      if gone[node] then
        for _, interest in ipairs(interests_of(channel)) do
          withdraw(base, node, interest)
        end
      end
    end
  end
end

local function publish(at, time)
  local channel, blob, epoch, name, record = args[at], args[at + 1], args[at + 2], args[at + 3], args[at + 4]
  local setting = settings[name]
  if not setting then
    setting = 7 + SETTING * (tonumber(name) - 1)
    settings[name] = setting
  end
  if record ~= '' then
    record = base .. 'id:' .. record
    local first = call('GET', record)
    if first then
      return '=' .. first
    end
  end
  -- Before anything is written: it may fail.
  local nodes, position = listeners[channel] or find_listeners(channel), ''
  if epoch ~= '-' then
    position = append(base .. 'h:' .. channel, channel, blob, epoch, setting, time)
  end
  fan_out(nodes, position .. ' ' .. time .. ' ' .. channel, blob)
  if record ~= '' then
    call('SET', record, position, 'PX', args[setting + 3])
  end
  return position
end

find_live_prefixes()
if args[5] == '1' then
  touch()
end
open_meta()
local time, count = num(now), (#args - FIRST + 1) / WIDTH
local result, protected = { count }, pcall
for n = 1, count do
  local ok, outcome = protected(publish, FIRST + (n - 1) * WIDTH, time)
  if not ok then
    outcome = '!' .. (type(outcome) == 'table' and outcome.err or tostring(outcome))
  end
  result[n + 1] = outcome
end
for node in pairs(batches) do
  send(node)
end
if refused then
  for n = 1, count do
    result[n + 1] = refuse_untaken(FIRST + (n - 1) * WIDTH, result[n + 1])
  end
end
if next(gone) then
  pcall(drop_gone)
end
return result
