-- Shared beginning of the scripts that change who is a member of a channel.
-- KEYS[1] meta
-- ARGV[1] base: what every key of the partition starts with, ARGV[2] node that calls
-- ARGV[3] greatest length of an inbox
-- `m:<channel>` is a hash session -> `<node>/<1 to announce the leave, else 0> <member>`, `mc` a zset of the channels
-- that have members. `n:<node>` is the set of what a node holds: the mark `lease`, its interests, and
-- `m<session> <channel>` for each of its members.
local base, node, inbox_max = ARGV[1], ARGV[2], ARGV[3]
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local watchers, watcher_keys = {}, {}

local function keys_of(channel)
  local keys = { base .. 'pi:' .. channel, base .. 'pw:' }
  for dot in string.gmatch(channel, '()%.') do
    keys[#keys + 1] = base .. 'pw:' .. string.sub(channel, 1, dot - 1)
  end
  keys[#keys + 1] = base .. 'pw:' .. channel
  return keys
end

-- While a slot migrates Redis answers TRYAGAIN or ASK here, before anything is written.
local function touch(channel)
  if not watchers[channel] then
    watcher_keys[channel] = keys_of(channel)
    watchers[channel] = redis.call('SUNION', unpack(watcher_keys[channel]))
    redis.call('EXISTS', base .. 'm:' .. channel, base .. 'mc')
    for _, watcher in ipairs(watchers[channel]) do
      redis.call('EXISTS', base .. 'in:' .. watcher)
    end
  end
end

-- Node that holds a member, whether its leave is announced, and the member itself.
local function split_member(held)
  return string.match(held, '^(%d+)/([01]) (.*)$')
end

-- A watcher without inbox is gone. Out of memory: nothing is changed, and the caller tries again later.
local function announce(channel, action, member)
  for _, watcher in ipairs(watchers[channel]) do
    local id = redis.pcall('XADD', base .. 'in:' .. watcher, 'NOMKSTREAM', 'MAXLEN', '~', inbox_max,
      watcher .. '-*', action .. ' ' .. channel, member)
    if type(id) == 'table' and string.sub(id.err or '', 1, 3) == 'OOM' then
      error(id)
    end
    if not id then
      for _, key in ipairs(watcher_keys[channel]) do
        -- May be gone with the watcher before it, and what is gone fails while the slot migrates.
        redis.pcall('SREM', key, watcher)
      end
    end
  end
end

-- Removes the member if `of` holds it; whether it did.
local function remove_member(of, channel, session)
  local key = base .. 'm:' .. channel
  local held = redis.call('HGET', key, session)
  if not held then
    return false
  end
  local holder, told, member = split_member(held)
  if holder ~= of then
    return false
  end
  if told == '1' then
    announce(channel, 'l', member)
  end
  -- Asked before: while the slot migrates a key that has just gone fails the script.
  local last = redis.call('HLEN', key) == 1
  redis.call('HDEL', key, session)
  if last then
    redis.call('ZREM', base .. 'mc', channel)
  end
  return true
end
