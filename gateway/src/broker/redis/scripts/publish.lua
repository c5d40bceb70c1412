-- Publishes of one partition, in order: history entry, fan-out and idempotency record of each in one step.
-- KEYS[1] meta
-- ARGV[1] base, ARGV[2] replid (see meta.lua)
-- ARGV[3] greatest length of an inbox, ARGV[4] greatest size of the catalogue
-- then 8 for each publish: channel; blob; epoch that the caller believes in ('' unknown, '-' no history);
--   history size; ms to keep the history; '1' to refresh that; idempotency record's name ('' none); ms to keep it
-- Result: { count, outcome... }; an outcome is the position `<epoch>-<offset>` ('' without history),
--   `=` and the first position for a repeated key, or `!` and the error: then this publish wrote nothing
local inbox_max, catalogue_max = ARGV[3], tonumber(ARGV[4])
local WIDTH, FIRST = 8, 5
local count = (#ARGV - FIRST + 1) / WIDTH
-- By channel: who listens, where that is written, the history. By node: its inbox, and the next ID in there. Made once
-- for a call: a name costs about a tenth of a microsecond each time that it is put together.
local listeners, interest_keys, histories, inbox_of, next_id = {}, {}, {}, {}, {}
local call = redis.call

local function keys_of(channel)
  local keys = { base .. 'i:' .. channel, base .. 'w:' }
  for dot in string.gmatch(channel, '()%.') do
    keys[#keys + 1] = base .. 'w:' .. string.sub(channel, 1, dot - 1)
  end
  keys[#keys + 1] = base .. 'w:' .. channel
  return keys
end

-- While a slot migrates Redis answers TRYAGAIN or ASK here, before anything is written.
local function touch()
  local keys, inboxes = { KEYS[1], base .. 'chans', base .. 'gone' }, {}
  for i = 0, count - 1 do
    local at = FIRST + i * WIDTH
    local channel, record = ARGV[at], ARGV[at + 6]
    if record ~= '' then
      keys[#keys + 1] = base .. 'id:' .. record
    end
    if not listeners[channel] then
      histories[channel] = base .. 'h:' .. channel
      keys[#keys + 1] = histories[channel]
      interest_keys[channel] = keys_of(channel)
      listeners[channel] = call('SUNION', unpack(interest_keys[channel]))
      for _, node in ipairs(listeners[channel]) do
        if not inbox_of[node] then
          inbox_of[node], next_id[node] = base .. 'in:' .. node, node .. '-*'
          inboxes[#inboxes + 1] = inbox_of[node]
        end
      end
    end
  end
  redis.call('EXISTS', unpack(keys))
  if #inboxes > 0 then
    redis.call('EXISTS', unpack(inboxes))
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
    redis.call('HSET', base .. 'gone', channel, '+' .. noted)
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
local function append(key, channel, blob, epoch, size, keep, refresh, time)
  local believed, id = tonumber(epoch), nil
  if believed and floor_epoch <= believed and believed <= top then
    id = redis.pcall('XADD', key, 'NOMKSTREAM', 'MAXLEN', '~', size, epoch .. '-*', 't', time, 'b', blob)
    if type(id) == 'string' and string.sub(id, -2) == '-0' then
      redis.call('XDEL', key, id)
      local last = redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1)[1]
      redis.call('XSETID', key, last[1])
      id = nil
    end
  end
  if type(id) ~= 'string' then
    id = append_slowly(key, channel, blob, size, keep, time)
    refresh = '1'
  end
  if refresh == '1' then
    redis.call('PEXPIRE', key, keep)
  end
  return id
end

-- A node without inbox is gone. Another failure here must not fail what is already stored: the node finds the hole. What
-- is not stored nobody would find: if no inbox takes it (out of memory, a replica), it fails.
local function fan_out(channel, position, blob, time)
  local gone, taken, refusal
  -- One field for what is short: each costs in the entry, in the reply of the reader, and there again to parse.
  local head = position .. ' ' .. time .. ' ' .. channel
  for _, node in ipairs(listeners[channel]) do
    local id = redis.pcall('XADD', inbox_of[node], 'NOMKSTREAM', 'MAXLEN', '~', inbox_max, next_id[node],
      'm', head, 'b', blob)
    if not id then
      gone = gone or {}
      gone[node] = true
    elseif type(id) == 'table' then
      refusal = id
    else
      taken = true
    end
  end
  if refusal and position == '' and not taken then
    error(refusal)
  end
  if gone then
    local kept = {}
    for _, node in ipairs(listeners[channel]) do
      if gone[node] then
        for _, key in ipairs(interest_keys[channel]) do
          redis.call('SREM', key, node)
        end
      else
        kept[#kept + 1] = node
      end
    end
    listeners[channel] = kept
  end
end

local function publish(at, time)
  local channel, blob, epoch, record = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 6]
  if record ~= '' then
    record = base .. 'id:' .. record
    local first = redis.call('GET', record)
    if first then
      return '=' .. first
    end
  end
  local position = ''
  if epoch ~= '-' then
    position = append(histories[channel], channel, blob, epoch, ARGV[at + 3], ARGV[at + 4], ARGV[at + 5], time)
  end
  fan_out(channel, position, blob, time)
  if record ~= '' then
    redis.call('SET', record, position, 'PX', ARGV[at + 7])
  end
  return position
end

touch()
open_meta()
local time, result = num(now), { count }
for i = 0, count - 1 do
  local ok, outcome = pcall(publish, FIRST + i * WIDTH, time)
  if not ok then
    outcome = '!' .. (type(outcome) == 'table' and outcome.err or tostring(outcome))
  end
  result[#result + 1] = outcome
end
return result
