-- Shared by the scripts that write interest. An interest is `i:<channel>` or `w:<literal prefix of a pattern>`; `i` and `w`
-- are hashes, from the channel or the prefix to the nodes, with a space between two: so a publish finds those of all its
-- channels with one command each. Watchers of presence register `pi:<channel>` or `pw:<literal prefix>`, a set each.
local function interests_of(base)
  -- Redis packs a small hash into a list and looks through it from its start. One long value keeps it from doing so.
  -- No channel and no prefix has this name.
  local SPARE, LONG = ' ', string.rep('-', 65)
  -- Keys that were deleted: while the slot migrates a key that has just gone fails the script.
  local deleted = {}

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

  local interests = {}

  -- To be done before the first write, see scripts.rs.
  function interests.touch(node, interest)
    redis.call('EXISTS', (place(interest)), base .. 'n:' .. node)
  end

  -- The caller has seen to the node's lease (lease.lua). Also takes a watcher's.
  function interests.register(node, interest)
    local key, name = place(interest)
    local nodes = name and redis.call('HGET', key, name)
    if not name then
      redis.call('SADD', key, node)
    elseif not nodes then
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
    elseif redis.call('HLEN', key) > (redis.call('HGET', key, SPARE) and 2 or 1) then
      redis.call('HDEL', key, name)
    else
      redis.call('DEL', key)
      deleted[key] = true
    end
  end

  return interests
end
