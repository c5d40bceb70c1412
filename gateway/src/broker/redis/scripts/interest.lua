-- Shared by the scripts that write interest: `i:<channel>` or `w:<literal prefix>`, a set of nodes each. `prefixes`
-- names every literal prefix that has such a set (or had one lately), so that a publish need not ask each of them.

-- The caller has seen to the node's lease (lease.lua).
local function register(base, node, interest)
  if string.sub(interest, 1, 2) == 'w:' then
    redis.call('SADD', base .. 'prefixes', string.sub(interest, 3))
  end
  redis.call('SADD', base .. interest, node)
  redis.call('SADD', base .. 'n:' .. node, interest)
end

-- The caller forgets it in `n:<node>`.
local function withdraw(base, node, interest)
  -- Asked before: while the slot migrates a key that has just gone fails the script.
  local others = redis.call('SCARD', base .. interest)
  others = others - redis.call('SREM', base .. interest, node)
  if others == 0 and string.sub(interest, 1, 2) == 'w:' then
    redis.call('SREM', base .. 'prefixes', string.sub(interest, 3))
  end
end
