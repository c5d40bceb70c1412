-- Shared reading of histories; follows meta.lua. An entry is { id, { 't', time ms, 'b', blob } }.
local MAX_OFFSET = '18446744073709551615'

local function entry_time(entry)
  return tonumber(entry[2][2])
end

local function one(command, key, from, to)
  return redis.call(command, key, from, to, 'COUNT', 1)[1]
end

-- Last entry of `epoch`, nil if the epoch is not in the stream.
local function end_of(key, epoch)
  return one('XREVRANGE', key, epoch .. '-' .. MAX_OFFSET, epoch .. '-0')
end

-- First entry with at least `offset`; `first` is the stream's first ID. Offsets go on across epochs.
local function seek(key, first, offset)
  local epoch = split(first)
  while true do
    local last = end_of(key, epoch)
    if last then
      local _, reached = split(last[1])
      if reached >= offset then
        return one('XRANGE', key, epoch .. '-' .. num(offset), '+')
      end
    end
    local after = one('XRANGE', key, num(tonumber(epoch) + 1) .. '-0', '+')
    if not after then
      return nil
    end
    epoch = split(after[1])
  end
end

-- First entry between the entries `low` and `high` whose time is at least `time`; `high`'s is.
local function seek_time(key, low, high, time)
  if entry_time(low) >= time then
    return low
  end
  local _, from = split(low[1])
  local _, to = split(high[1])
  local found = high
  while from + 1 < to do
    local middle = math.floor((from + to) / 2)
    local entry = seek(key, low[1], middle)
    if entry_time(entry) >= time then
      to, found = middle, entry
    else
      from = middle
    end
  end
  return found
end

-- What may be read of a history: raw (first entry), first (that is not too old, and among the last `size`), last.
-- Nil if there is none. A history whose last entry is older than `ttl` ms has expired, though Redis keeps it longer.
local function view(key, size, ttl)
  local last = one('XREVRANGE', key, '+', '-')
  if not last then
    return nil
  end
  local oldest = now - ttl + 1
  if entry_time(last) < oldest then
    redis.call('DEL', key)
    return nil
  end
  local raw = one('XRANGE', key, '-', '+')
  local first = raw
  local _, first_offset = split(raw[1])
  local _, last_offset = split(last[1])
  if last_offset - size + 1 > first_offset then
    -- A size of 0 over an older history leads past its end.
    first = seek(key, raw[1], last_offset - size + 1) or last
  end
  return { raw = raw, first = seek_time(key, first, last, oldest), last = last }
end

-- Epoch up to which histories of `channel`, which has none now, may have been lost; '' if it never had one. `gone` holds
-- it (see sweep.lua), after a `+` if that was before the latest history.
local function lost_epoch(channel)
  local lost = redis.call('HGET', base .. 'gone', channel)
  if lost and string.sub(lost, 1, 1) ~= '+' then
    return string.match(lost, '^%d+')
  end
  if redis.call('ZSCORE', base .. 'chans', channel) then
    redis.call('HSET', base .. 'gone', channel, top)
    return top
  end
  return forgot
end

-- The same for a channel that has a history, whose first entry is `first`.
local function lost_before(channel, first)
  local lost = redis.call('HGET', base .. 'gone', channel)
  if lost then
    return string.match(lost, '%d+') or ''
  end
  local epoch = split(first)
  return forgot ~= '' and lower(forgot, epoch) and forgot or ''
end

-- Reads at most `limit` entries of a channel. mode and at:
--   `after` ID: what follows it; `start`; `time` ms; `last` count; `before` ID or '' (newest first); `none`
-- Result: { lost epoch, raw first ID, first ID, last ID, last ID of the epoch in `after`, entries },
-- the IDs '' where there is none.
local function read_channel(channel, size, ttl, mode, at, limit)
  local key = base .. 'h:' .. channel
  local seen = view(key, tonumber(size), tonumber(ttl))
  if not seen then
    return { lost_epoch(channel), '', '', '', '', {} }
  end
  local from, cursor_end, entries = seen.first[1], '', {}
  local _, first_offset = split(from)
  if mode == 'after' then
    local epoch, offset = split(at)
    local last = end_of(key, epoch)
    if last then
      cursor_end = last[1]
      if offset >= first_offset - 1 then
        from = '(' .. at
      end
    end
  elseif mode == 'time' then
    if entry_time(seen.last) >= tonumber(at) then
      from = seek_time(key, seen.first, seen.last, tonumber(at))[1]
    else
      mode = 'none'
    end
  elseif mode == 'last' then
    local _, last_offset = split(seen.last[1])
    local wanted = last_offset - tonumber(at) + 1
    if wanted > last_offset then
      mode = 'none'
    elseif wanted > first_offset then
      from = seek(key, seen.first[1], wanted)[1]
    end
  end
  if mode == 'before' then
    local to = at == '' and '+' or '(' .. at
    entries = redis.call('XREVRANGE', key, to, from, 'COUNT', limit)
  elseif mode ~= 'none' then
    entries = redis.call('XRANGE', key, from, '+', 'COUNT', limit)
  end
  return { lost_before(channel, seen.raw[1]), seen.raw[1], seen.first[1], seen.last[1], cursor_end, entries }
end
