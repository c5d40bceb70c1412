-- Joins and leaves of a node's members, in order.
-- KEYS and ARGV[1] to ARGV[3]: see presence.lua
-- then 5 for each change: action, channel, session, member, '1' to announce it and its leave, else '0'. Actions:
--   `join`: takes the member over from whoever holds it, and tells that node; `keep`: the same, but not from another
--   node; `leave`: ends it if this node holds it
-- Result: { count, outcome... }: 1 the member came or went, 0 nothing to announce, 2 another node holds it
local WIDTH, FIRST = 5, 4

local function put(action, channel, session, member, told)
  local key, item = base .. 'm:' .. channel, 'm' .. session .. ' ' .. channel
  local held = redis.call('HGET', key, session)
  local holder = held and split_member(held)
  if holder and holder ~= node then
    if action == 'keep' then
      return 2
    end
    redis.call('SREM', base .. 'n:' .. holder, item)
    -- The former holder forgets it; unless it has only just asked for it, and this call was late.
    redis.pcall('XADD', base .. 'in:' .. holder, 'NOMKSTREAM', 'MAXLEN', '~', inbox_max, holder .. '-*',
      't ' .. channel, member)
  end
  local value = node .. '/' .. told .. ' ' .. member
  redis.call('SADD', base .. 'n:' .. node, item)
  if held ~= value then
    redis.call('HSET', key, session, value)
  end
  if held then
    return 0
  end
  redis.call('ZADD', base .. 'mc', 0, channel)
  if told == '1' then
    announce(channel, 'j', member)
  end
  return 1
end

for at = FIRST, #ARGV, WIDTH do
  local channel, session = ARGV[at + 1], ARGV[at + 2]
  touch(channel)
  -- A former holder's part goes with the rest, or the whole call waits.
  local held = redis.call('HGET', base .. 'm:' .. channel, session)
  local holder = held and split_member(held)
  if holder and holder ~= node then
    redis.call('EXISTS', base .. 'n:' .. holder, base .. 'in:' .. holder)
  end
end
redis.call('EXISTS', hold(node))
local result = { (#ARGV - FIRST + 1) / WIDTH }
for at = FIRST, #ARGV, WIDTH do
  local action, channel, session, member = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  if action == 'leave' then
    redis.call('SREM', base .. 'n:' .. node, 'm' .. session .. ' ' .. channel)
    result[#result + 1] = remove_member(node, channel, session) and 1 or 0
  else
    result[#result + 1] = put(action, channel, session, member, ARGV[at + 4])
  end
end
return result
