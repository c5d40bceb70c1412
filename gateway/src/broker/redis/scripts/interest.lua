-- Shared by the scripts that write interest. An interest is `i:<channel>` or `w:<literal prefix of a pattern>`; `i` and `w`
-- are hashes, from the channel or the prefix to the nodes, with a space between two: so a publish finds those of all its
-- channels with one command each. Watchers of presence register `pi:<channel>` or `pw:<literal prefix>`, a set each.
-- The first node of a channel and the end of the last one are items of the queue `q:occupancy` (see work.rs), as long as
-- the field `occupancy` of `meta` is a time to come: nodes that want to know set it (register_node.lua, heartbeat.lua).
local function interests_of(base)
  -- Redis packs a small hash into a list and looks through it from its start. One long value keeps it from doing so.
  -- No channel and no prefix has this name.
  local SPARE, LONG = ' ', string.rep('-', 65)
  -- Keys that were deleted: while the slot migrates a key that has just gone fails the script.
  local deleted = {}
  -- Most items of the queue: more are not recorded, but counted in the field `occupancy_lost` of `meta`.
  local MOST = 100000
  -- The queue: false if nobody wants to know, nil if that was not looked up yet; and the time in ms, as text.
  local queue, time

  -- Key and field of an interest; no field if it is a watcher's.
  local function place(interest)
    local kind, name = string.match(interest, '^([iw]):(.*)$')
    if kind then
      return base .. kind, name
    end
    return base .. interest
  end

  -- Where `node` stands among the nodes, nil if it does not.
  local function find_node(nodes, node)
    return string.find(' ' .. nodes .. ' ', ' ' .. node .. ' ', 1, true)
  end

  local function occupancy_queue()
    if queue == nil then
      local wanted = redis.call('HGET', base .. 'meta', 'occupancy')
      if wanted then
        local clock = redis.call('TIME')
        time = clock[1] .. string.sub('00000' .. clock[2], -6, -4)
        wanted = tonumber(wanted) > tonumber(time)
      end
      queue = wanted and base .. 'q:occupancy'
    end
    return queue
  end

  -- Records that a channel is occupied (`o`) or vacated (`v`). Before the interest changes: without memory both fail.
  local function record(word, key, channel)
    local lane = key == base .. 'i' and occupancy_queue()
    if not lane then
      return
    end
    if redis.call('XLEN', lane) < MOST then
      redis.call('XADD', lane, '*', 'w', word .. ' ' .. time .. ' ' .. channel)
    else
      local lost = redis.call('HGET', base .. 'meta', 'occupancy_lost') or '0'
      redis.call('HSET', base .. 'meta', 'occupancy_lost', string.format('%.0f', tonumber(lost) + 1))
    end
  end

  local interests = {}

  -- To be done before the first write, see scripts.rs.
  function interests.touch(node, interest)
    local key = place(interest)
    redis.call('EXISTS', key, base .. 'n:' .. node)
    if key == base .. 'i' and occupancy_queue() then
      redis.call('EXISTS', queue)
    end
  end

  -- The caller has seen to the node's lease (lease.lua). Also takes a watcher's.
  function interests.register(node, interest)
    local key, name = place(interest)
    local nodes = name and redis.call('HGET', key, name)
    if not name then
      redis.call('SADD', key, node)
    elseif not nodes then
      record('o', key, name)
      redis.call('HSET', key, SPARE, LONG, name, node)
    elseif not find_node(nodes, node) then
      redis.call('HSET', key, name, nodes .. ' ' .. node)
    end
    redis.call('SADD', base .. 'n:' .. node, interest)
  end

  -- The caller forgets it in `n:<node>`. Also takes a watcher's.
  function interests.withdraw(node, interest)
    local key, name = place(interest)
    if not name then
      redis.call('SREM', key, node)
      return
    end
    local nodes = not deleted[key] and redis.call('HGET', key, name)
    local at = nodes and find_node(nodes, node)
    if not at then
      return
    end
    local others = string.sub(nodes, 1, at - 1) .. string.sub(nodes, at + #node + 1)
    if others ~= '' then
      redis.call('HSET', key, name, (string.gsub(others, ' $', '')))
      return
    end
    record('v', key, name)
    if redis.call('HLEN', key) > (redis.call('HGET', key, SPARE) and 2 or 1) then
      redis.call('HDEL', key, name)
    else
      redis.call('DEL', key)
      deleted[key] = true
    end
  end

  return interests
end
