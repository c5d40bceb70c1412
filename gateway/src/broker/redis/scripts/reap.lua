-- Shared cleaning up after a node; follows interest.lua and presence.lua.

-- Takes away at most `most` things that node `of` holds: its interests, and with a leave those of its members that no
-- other node has taken over. With the last one go its lease and its inbox. Answers what is left, and members removed.
local function clean(of, most)
  local held, interests = base .. 'n:' .. of, interests_of(base)
  local items, removed = redis.call('SRANDMEMBER', held, most), 0
  for _, item in ipairs(items) do
    local channel = string.match(item, '^m%S+ (.*)$')
    if channel then
      touch(channel)
    elseif item ~= 'lease' then
      interests.touch(of, item)
    end
  end
  redis.call('EXISTS', base .. 'leases', base .. 'in:' .. of)
  -- Without the mark the node, should it still live, knows that something was taken away.
  -- Counted from before: while the slot migrates a key that has just gone fails the script.
  local left = redis.call('SCARD', held)
  left = left - redis.call('SREM', held, 'lease')
  for _, item in ipairs(items) do
    local session, channel = string.match(item, '^m(%S+) (.*)$')
    if not session then
      if item ~= 'lease' then
        interests.withdraw(of, item)
      end
    elseif remove_member(of, channel, session) then
      removed = removed + 1
    end
    if item ~= 'lease' then
      left = left - redis.call('SREM', held, item)
    end
  end
  if left == 0 then
    redis.call('ZREM', base .. 'leases', of)
    redis.call('DEL', base .. 'in:' .. of)
  end
  return left, removed
end
