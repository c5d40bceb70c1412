-- Shared by the scripts that change queues. A queue is named `<group>/<channel>`; its keys, with `q` for that name:
--   `j:q`   stream of jobs, ready or handed out: { t: ms of the publish, b: blob, p: position in the history, k: ordering key,
--           d: until when it was delayed };
--           its group `c` has a consumer for each session, and `~` for jobs that were given back
--   `jt:q`  zset: jobs that are handed out, by their deadline in ms; from then on they may be handed out again
--   `jr:q`  zset: jobs that were given back, by when they may be handed out again
--   `jd:q`  zset: jobs that were published with a delay, packed, by when it has passed
--   `jk:q`  hash: ordering key -> its jobs: the first one in the stream or delayed, the others wait for it
--   `jp:q/<key>`  list: those that wait, packed
--   `jx:q`  stream of dead jobs: as in `j:q`, and { a: deliveries }; `jo:q` hash of those still to be told: job -> blob
--   `js:q`  hash: parked (jobs in the lists), seq (of delayed jobs)
--   `jc:q`  hash: consumer -> its node; `jh:q` set: nodes that wait for jobs
-- and of the partition: `jl` zset of `<channel> <group>`, lexicographic; `jg` hash: channel -> its groups, with a space between
-- two, apart from the default group of a channel that is a queue.
-- `now` is the time in ms. The zsets and hashes of a queue are not to vanish: while the slot migrates a key that has just gone
-- fails the script. So each has the member `-`.
local function jobs_of(base, now, inbox_max)
  local jobs = { freed = 0, buried = 0, dropped = 0 }
  local call = redis.call
  local time = string.format('%.0f', now)

  local function key(letter, q)
    return base .. letter .. ':' .. q
  end

  -- Before the first write, see scripts.rs. Makes what is not to vanish.
  function jobs.open(q)
    call('EXISTS', key('j', q), key('jt', q), key('jr', q), key('jd', q), key('jk', q), key('js', q), key('jx', q),
      key('jo', q), key('jc', q), key('jh', q), base .. 'jl', base .. 'jg')
    if call('HEXISTS', key('js', q), 'parked') == 0 then
      for _, letter in ipairs({ 'jt', 'jr', 'jd' }) do
        call('ZADD', key(letter, q), '+inf', '-')
      end
      call('HSET', key('jk', q), '-', '0')
      local group, channel = string.match(q, '^([^/]*)/(.*)$')
      call('ZADD', base .. 'jl', 0, channel .. ' ' .. group)
      call('HSET', key('js', q), 'parked', '0', 'seq', '0')
    end
  end

  function jobs.exists(q)
    return call('HEXISTS', key('js', q), 'parked') == 1
  end

  -- Jobs that are neither settled nor dead.
  function jobs.length(q)
    return call('XLEN', key('j', q)) + tonumber(call('HGET', key('js', q), 'parked') or '0') + call('ZCARD', key('jd', q))
      - 1
  end

  -- Tells one of the nodes that wait. What gets lost here they find when they look for themselves.
  function jobs.wake(q)
    for _ = 1, 8 do
      local node = redis.pcall('SPOP', key('jh', q))
      if type(node) ~= 'string' then
        return
      end
      local inbox = base .. 'in:' .. node
      if type(redis.pcall('XADD', inbox, 'NOMKSTREAM', 'MAXLEN', '~', inbox_max, node .. '-*', 'q ' .. q, '')) == 'string' then
        return
      end
    end
  end

  -- Adds to the stream, of which there is no other job of this key.
  local function release(q, fields)
    call('XADD', key('j', q), '*', unpack(fields))
    jobs.freed = jobs.freed + 1
  end

  local function field(fields, name)
    for at = 1, #fields, 2 do
      if fields[at] == name then
        return fields[at + 1]
      end
    end
    return ''
  end

  -- The first job of its key, or one without: it is ready, or waits for its time.
  local function come_forward(q, fields)
    local due = tonumber(field(fields, 'd')) or 0
    if due > now then
      local seq = call('HINCRBY', key('js', q), 'seq', 1)
      call('ZADD', key('jd', q), string.format('%.0f', due), string.format('%.0f:', seq) .. cmsgpack.pack(fields))
    else
      release(q, fields)
    end
  end

  -- Adds a job. `delay` in ms, `position` '' without history, `published` its time if that is not now.
  function jobs.put(q, blob, position, ordering_key, delay, published)
    local fields = { 't', published or time, 'b', blob }
    local function set(name, value)
      fields[#fields + 1], fields[#fields + 2] = name, value
    end
    if position ~= '' then
      set('p', position)
    end
    if delay > 0 then
      set('d', string.format('%.0f', now + delay))
    end
    if ordering_key ~= '' then
      set('k', ordering_key)
      if call('HINCRBY', key('jk', q), ordering_key, 1) > 1 then
        call('RPUSH', key('jp', q) .. '/' .. ordering_key, cmsgpack.pack(fields))
        call('HINCRBY', key('js', q), 'parked', 1)
        return
      end
    end
    come_forward(q, fields)
  end

  -- Jobs whose delay has passed.
  function jobs.promote(q)
    for _, member in ipairs(call('ZRANGEBYSCORE', key('jd', q), '-inf', time, 'LIMIT', 0, 200)) do
      release(q, cmsgpack.unpack(string.sub(member, string.find(member, ':', 1, true) + 1)))
      call('ZREM', key('jd', q), member)
    end
  end

  -- The first job of this key is no more: the next one takes its place.
  function jobs.advance(q, ordering_key)
    if call('HINCRBY', key('jk', q), ordering_key, -1) <= 0 then
      call('HDEL', key('jk', q), ordering_key)
      return
    end
    local following = call('LPOP', key('jp', q) .. '/' .. ordering_key)
    if following then
      call('HINCRBY', key('js', q), 'parked', -1)
      come_forward(q, cmsgpack.unpack(following))
    end
  end

  -- The fields of a job in the stream; nil if it is not there.
  local function read(q, id)
    local entry = call('XRANGE', key('j', q), id, id)[1]
    return entry and entry[2]
  end

  -- Takes a job out of the stream; before anything of it is removed, the next one of its key takes its place.
  function jobs.remove(q, id, fields)
    local ordering_key = field(fields or {}, 'k')
    if ordering_key ~= '' then
      jobs.advance(q, ordering_key)
    end
    redis.pcall('XACK', key('j', q), 'c', id)
    call('XDEL', key('j', q), id)
    call('ZREM', key('jt', q), id)
    call('ZREM', key('jr', q), id)
  end

  -- { id, consumer, ms since, deliveries } of a job that was handed out; nil if it is not.
  function jobs.pending(q, id)
    local found = redis.pcall('XPENDING', key('j', q), 'c', id, id, 1)
    return not found.err and found[1] or nil
  end

  -- Removes a job that was acked. Only jobs with an ordering key need to be read.
  function jobs.ack(q, id)
    jobs.remove(q, id, call('HLEN', key('jk', q)) > 1 and read(q, id) or nil)
  end

  -- Puts a job that is out of attempts on the dead shelf; `tell` if it is to be published elsewhere, too.
  function jobs.bury(q, id, attempts, most, tell)
    local fields = read(q, id)
    if fields then
      local shelf = key('jx', q)
      fields[#fields + 1], fields[#fields + 2] = 'a', attempts
      if tell then
        call('HSET', key('jo', q), id, field(fields, 'b'))
      end
      call('XADD', shelf, '*', unpack(fields))
      jobs.buried = jobs.buried + 1
      local over = call('XLEN', shelf) - tonumber(most)
      if over > 0 then
        call('XTRIM', shelf, 'MAXLEN', most)
        jobs.dropped = jobs.dropped + over
      end
    end
    jobs.remove(q, id, fields)
  end

  -- Takes a job from whoever has it: it may be handed out again from `due` on.
  function jobs.give_back(q, id, due)
    call('XCLAIM', key('j', q), 'c', '~', 0, id, 'JUSTID')
    call('ZADD', key('jr', q), string.format('%.0f', due), id)
    call('ZREM', key('jt', q), id)
    jobs.freed = jobs.freed + (due <= now and 1 or 0)
  end

  -- Hands a consumer up to `most` jobs: `take` is called with the id, the deliveries and the fields of each.
  function jobs.hand(q, consumer, most, deadline, attempts, bury, take)
    local taken = 0
    local function hand(id, deliveries, fields)
      call('ZADD', key('jt', q), deadline, id)
      taken = taken + 1
      take(id, deliveries, fields)
    end
    for _, zset in ipairs({ 'jr', 'jt' }) do
      local due = taken < most and call('ZRANGEBYSCORE', key(zset, q), '-inf', time, 'LIMIT', 0, most - taken) or {}
      for _, id in ipairs(due) do
        local pending = jobs.pending(q, id)
        local claimed
        if pending and pending[4] >= attempts then
          bury(id, pending[4])
        elseif pending then
          claimed = call('XCLAIM', key('j', q), 'c', consumer, 0, id)[1]
        end
        if claimed then
          hand(id, pending[4] + 1, claimed[2])
        else
          call('ZREM', key('jt', q), id)
        end
        call('ZREM', key('jr', q), id)
      end
    end
    -- Without a group there is nothing to hand out: it was removed.
    local read = taken < most
      and redis.pcall('XREADGROUP', 'GROUP', 'c', consumer, 'COUNT', most - taken, 'STREAMS', key('j', q), '>')
    for _, entry in ipairs(read and not read.err and read[1][2] or {}) do
      hand(entry[1], 1, entry[2])
    end
    return taken
  end

  -- When something becomes due next, as text; '' if nothing will.
  function jobs.next_due(q)
    local next
    for _, letter in ipairs({ 'jt', 'jr', 'jd' }) do
      local score = call('ZRANGE', key(letter, q), 0, 0, 'WITHSCORES')[2]
      if score and score ~= 'inf' and (not next or tonumber(score) < tonumber(next)) then
        next = score
      end
    end
    return next or ''
  end

  jobs.key, jobs.field, jobs.read = key, field, read
  return jobs
end
