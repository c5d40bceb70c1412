-- Publishes of one partition, in order: history entry, fan-out and idempotency record of each in one step.
-- KEYS[1] meta
-- ARGV[1] base, ARGV[2] replid (see meta.lua)
-- ARGV[3] greatest length of an inbox, ARGV[4] greatest size of the catalogue
-- ARGV[5] '1' to touch every key before the first write (Redis Cluster), else '0'
-- ARGV[6] number of settings, ARGV[7] number of publishes, at most 1,000
-- then 6 for each setting: history size; ms to keep the history; '1' to refresh that; ms to keep an idempotency record; '1' if the
--   channel is a queue; most jobs of a queue
-- then in columns, each as long as there are publishes: channels; blobs; epochs that the caller believes in ('' unknown,
--   '-' no history); if there are several settings, the number of each one's, from 1; if any has one, the names of
--   idempotency records ('' none); if any has some, also how it waits in queues, `<delay in ms> <ordering key>` ('' neither)
-- Result: { count, outcome... }; an outcome is the position `<epoch>-<offset>` ('' without history),
--   `=` and the first position for a repeated key, or `!` and the error: then this publish wrote nothing
--
-- An inbox gets one entry for all publications of a call (more only if they are long): a pair of fields for each,
-- `<position> <time ms> <channel>` and blob. The entry has the sequence of its first publication, and the stream's last
-- ID is set to that of its last one: sequences count publications.
--
-- Every function and table that is made, and every number that is made of a text, costs each call about as much as looking
-- up a command does: the rare ones are made where they are needed, and texts stay texts.
local args, inbox_max, count = ARGV, ARGV[3], tonumber(ARGV[7])
-- What comes before the first of each column; nil without that column.
local channels = 7 + 6 * tonumber(ARGV[6])
local blobs = channels + count
local epochs = blobs + count
local numbers = ARGV[6] ~= '1' and epochs + count
local records = (numbers or epochs) + count
local options = records + count
if records == #args then
  records = nil
end
if options >= #args then
  options = nil
end
-- Where the setting of the latest publish begins, and its number as it is written: most often all have the same.
local setting, numbered = 8, '1'
-- Bytes after which an inbox entry is written and another one begun: what one read answers is bounded.
local ENTRY_BYTES = 65536
-- By number of the publish: who listens, as interest.lua writes it; `false` if nobody. By such a text: the nodes in it, as most
-- often many channels have the same ones.
local listening, parsed = nil, {}
-- By node: what its inbox is to get, the bytes of that, and whether it has no inbox any more.
local batches, bytes, gone = {}, {}, {}
-- By node: why its inbox took nothing (out of memory, a replica); nil if none refused.
local refused
local call, try, byte, kind = redis.call, redis.pcall, string.byte, type
-- By channel: its groups apart from the default one of a queue, as text; nil if no channel has any. What changes queues is made when a
-- channel has one.
local bound, jobs

-- The nodes who listen to the channel of publish `n`, each once.
local function listeners(n)
  local text = listening[n] or ''
  local nodes = parsed[text]
  if not nodes then
    local seen = {}
    nodes = {}
    for node in string.gmatch(text, '%S+') do
      if not seen[node] then
        seen[node] = true
        nodes[#nodes + 1] = node
      end
    end
    parsed[text] = nodes
  end
  return nodes
end

-- Every literal prefix that a pattern which matches the channel may have.
local function each_prefix(channel, visit)
  visit('')
  for dot in string.gmatch(channel, '()%.') do
    visit(string.sub(channel, 1, dot - 1))
  end
  visit(channel)
end

-- Adds those who listen to patterns to `listening`.
local function add_pattern_listeners()
  local key, names, texts = base .. 'w', {}, {}
  local function ask()
    for at, text in ipairs(call('HMGET', key, unpack(names))) do
      texts[names[at]] = text
    end
    names = {}
  end
  for n = 1, count do
    each_prefix(args[channels + n], function(prefix)
      if texts[prefix] == nil then
        texts[prefix] = false
        names[#names + 1] = prefix
        -- A call from Lua takes some thousand arguments.
        if #names == 1000 then
          ask()
        end
      end
    end)
  end
  if #names > 0 then
    ask()
  end
  for n = 1, count do
    each_prefix(args[channels + n], function(prefix)
      local text = texts[prefix]
      if text and text ~= listening[n] then
        listening[n] = listening[n] and listening[n] .. ' ' .. text or text
      end
    end)
  end
end

-- The stream decides: its epoch if that may still be written, else a new one. The offset goes on if it lives.
local function append_slowly(key, channel, blob, size, keep)
  local function set_top(epoch)
    top = epoch
    redis.call('HSET', KEYS[1], 'top', top)
  end
  -- An epoch that no channel of the partition ever had.
  local function new_epoch()
    if not raised then
      set_top(num(math.max(now, tonumber(top) + 1)))
    end
    return top
  end
  -- A channel that is listed already had a history that is gone: `lost` is the epoch up to which, if nobody noticed.
  local function enlist(lost)
    local chans = base .. 'chans'
    if redis.call('ZSCORE', chans, channel) then
      local noted = redis.call('HGET', base .. 'gone', channel)
      if not noted or string.sub(noted, 1, 1) == '+' then
        noted = lost
      end
      redis.call('HSET', base .. 'gone', channel, '+' .. string.match(noted, '^%d+'))
    elseif redis.call('ZCARD', chans) < tonumber(args[4]) then
      redis.call('ZADD', chans, 0, channel)
      redis.call('HDEL', base .. 'gone', channel)
    else
      redis.call('HSET', KEYS[1], 'forgot', top)
    end
  end

  local last = redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1)[1]
  if not last and redis.call('EXISTS', key) == 1 then
    -- Emptied by whoever trimmed it: its offsets count on.
    local stream = redis.call('XINFO', 'STREAM', key)
    for at = 1, #stream, 2 do
      if stream[at] == 'last-generated-id' then
        last = { stream[at + 1] }
      end
    end
  end
  if not last then
    -- What has expired was written before the time that histories are kept.
    local lost = num(math.max(0, math.min(tonumber(top), now - tonumber(keep))))
    local id = redis.call('XADD', key, new_epoch() .. '-1', 't', time, 'b', blob)
    enlist(lost)
    return id
  end
  local epoch, offset = split(last[1])
  local id = epoch .. '-*'
  if lower(epoch, floor_epoch) then
    id = new_epoch() .. '-' .. num(offset + 1)
  elseif lower(top, epoch) then
    set_top(epoch)
  end
  return redis.call('XADD', key, 'MAXLEN', '~', size, id, 't', time, 'b', blob)
end

-- XADD counts on in the epoch, answers nil without a stream and errs in a newer epoch; but in an older one it
-- would start this epoch at offset 0. That cannot be, as long as callers forget what they believe with the replid.
-- What is believed must be as long as floor and top, to be compared as text.
local function append(key, channel, blob, epoch)
  local size, refresh, id = args[setting], args[setting + 2], nil
  if #epoch == #top and epoch <= top and #epoch == #floor_epoch and floor_epoch <= epoch then
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
    id = append_slowly(key, channel, blob, size, args[setting + 1])
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
    local first = tonumber(string.sub(id, #node + 2))
    local last, most = first + #batch / 2 - 1, tonumber(inbox_max)
    try('XSETID', key, node .. '-' .. num(last))
    -- MAXLEN counts entries, the limit counts publications: looked after eight times while an inbox fills.
    local step = math.ceil(most / 8)
    if last > most and math.floor(last / step) > math.floor((first - 1) / step) then
      try('XTRIM', key, 'MINID', '~', node .. '-' .. num(last - most + 1))
    end
  end
end

-- The queues of the channel of publish `n`, whose setting is known; nil if it has none.
local function queues_of(channel)
  local groups, queues = bound and bound[channel], nil
  if args[setting + 4] == '1' and not string.find(' ' .. (groups or '') .. ' ', ' default ', 1, true) then
    queues = { 'default/' .. channel }
  end
  for group in string.gmatch(groups or '', '%S+') do
    queues = queues or {}
    queues[#queues + 1] = group .. '/' .. channel
  end
  return queues
end

-- Opens the queues; fails if one has no room.
local function open_queues(queues)
  jobs = jobs or jobs_of(base, now, inbox_max)
  for _, q in ipairs(queues) do
    jobs.open(q)
    if jobs.length(q) >= tonumber(args[setting + 5]) then
      error({ err = 'QUEUEFULL ' .. args[setting + 5] .. ' ' .. string.match(q, '^[^/]*') })
    end
  end
end

-- A job for each queue.
local function enqueue(n, queues, blob, position)
  local delay, ordering_key = string.match(options and args[options + n] or '', '^(%d+) (.*)$')
  for _, q in ipairs(queues) do
    jobs.freed = 0
    jobs.put(q, blob, position, ordering_key or '', tonumber(delay or '0'))
    if jobs.freed > 0 then
      jobs.wake(q)
    end
  end
end

-- The publish with this number: its outcome.
local function publish(n)
  local channel, blob, epoch = args[channels + n], args[blobs + n], args[epochs + n]
  local record = records and args[records + n] or ''
  if numbers and args[numbers + n] ~= numbered then
    numbered = args[numbers + n]
    setting = 2 + 6 * tonumber(numbered)
  end
  if record ~= '' then
    record = base .. 'id:' .. record
    local first = call('GET', record)
    if first then
      return '=' .. first
    end
  end
  local queues = queues_of(channel)
  if queues then
    open_queues(queues)
  end
  -- Before anything is written, as whatever may fail. Jobs of a queue are for consumers alone.
  local nodes, position = args[setting + 4] == '1' and {} or listeners(n), ''
  if epoch ~= '-' then
    position = append(base .. 'h:' .. channel, channel, blob, epoch)
  end
  if queues then
    enqueue(n, queues, blob, position)
  end
  local head = position .. ' ' .. time .. ' ' .. channel
  for at = 1, #nodes do
    local node = nodes[at]
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
  if record ~= '' then
    call('SET', record, position, 'PX', args[setting + 3])
  end
  return position
end

listening = call('HMGET', base .. 'i', unpack(args, channels + 1, channels + count))
if call('EXISTS', base .. 'w') == 1 then
  add_pattern_listeners()
end
if call('EXISTS', base .. 'jg') == 1 then
  bound = {}
  for n, groups in ipairs(call('HMGET', base .. 'jg', unpack(args, channels + 1, channels + count))) do
    bound[args[channels + n]] = groups or nil
  end
end
if args[5] == '1' then
  -- While a slot migrates Redis answers TRYAGAIN or ASK here, before anything is written.
  local keys, inboxes = { KEYS[1], base .. 'chans', base .. 'gone' }, {}
  for n = 1, count do
    if records and args[records + n] ~= '' then
      keys[#keys + 1] = base .. 'id:' .. args[records + n]
    end
    keys[#keys + 1] = base .. 'h:' .. args[channels + n]
    for _, node in ipairs(listeners(n)) do
      if not inboxes[node] then
        inboxes[node] = true
        inboxes[#inboxes + 1] = base .. 'in:' .. node
      end
    end
  end
  call('EXISTS', unpack(keys))
  if #inboxes > 0 then
    call('EXISTS', unpack(inboxes))
  end
end
open_meta()
local result, protected = { count }, pcall
for n = 1, count do
  local ok, outcome = protected(publish, n)
  if not ok then
    outcome = '!' .. (type(outcome) == 'table' and outcome.err or tostring(outcome))
  end
  result[n + 1] = outcome
end
for node in pairs(batches) do
  send(node)
end
if refused then
  -- A publication without history that no inbox took has failed: its record must not say otherwise.
  local function refuse_untaken(n, outcome)
    local refusal
    for _, node in ipairs(outcome == '' and listeners(n) or {}) do
      if refused[node] then
        refusal = refused[node].err
      elseif not gone[node] then
        return outcome
      end
    end
    if not refusal then
      return outcome
    end
    if records and args[records + n] ~= '' then
      call('DEL', base .. 'id:' .. args[records + n])
    end
    return '!' .. refusal
  end
  for n = 1, count do
    result[n + 1] = refuse_untaken(n, result[n + 1])
  end
end
if next(gone) then
  -- A node without inbox is gone.
  pcall(function()
    local interests = interests_of(base)
    for n = 1, count do
      local channel = args[channels + n]
      for _, node in ipairs(listeners(n)) do
        if gone[node] then
          interests.withdraw(node, 'i:' .. channel)
          each_prefix(channel, function(prefix)
            interests.withdraw(node, 'w:' .. prefix)
          end)
        end
      end
    end
  end)
end
return result
