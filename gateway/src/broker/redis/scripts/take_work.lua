-- Takes or keeps a lane of a queue, and takes its next items: those taken before and not finished first.
-- Whoever takes over a lane claims what the one before has not finished, then removes that one's consumer.
-- KEYS[1] lane: stream, KEYS[2] who has it: string, with the lease as its time to live
-- ARGV[1] node, ARGV[2] lease in ms, ARGV[3] most items; 0: only keep the lane; -1: give it up
-- ARGV[4] id after which to begin among those taken before; 0: with the first
-- Result: { 0 } if another node has it, else { 1, { id, item }... }
local lane, holds, node, most = KEYS[1], KEYS[2], ARGV[1], tonumber(ARGV[3])
local group = 'w'
local holder = redis.call('GET', holds)
local there = redis.call('EXISTS', lane)
if holder and holder ~= node then
  return { 0 }
end
if most < 0 then
  if holder then
    redis.call('DEL', holds)
  end
  return { 0 }
end
redis.call('SET', holds, node, 'PX', ARGV[2])
if most == 0 or there == 0 then
  return { 1 }
end
-- Fails if it is there.
redis.pcall('XGROUP', 'CREATE', lane, group, '0')
if not holder then
  local at = '0-0'
  repeat
    at = redis.call('XAUTOCLAIM', lane, group, node, '0', at, 'COUNT', '100', 'JUSTID')[1]
  until at == '0-0'
  for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', lane, group)) do
    local is = {}
    for i = 1, #consumer, 2 do
      is[consumer[i]] = consumer[i + 1]
    end
    if is.name ~= node and is.pending == 0 then
      redis.call('XGROUP', 'DELCONSUMER', lane, group, is.name)
    end
  end
end
local out, left = { 1 }, most
-- What is new follows when all that was taken before has been read.
for _, from in ipairs({ ARGV[4], '>' }) do
  local read = left > 0 and redis.call('XREADGROUP', 'GROUP', group, node, 'COUNT', left, 'STREAMS', lane, from)
  for _, entry in ipairs(read and read[1][2] or {}) do
    left = left - 1
    if entry[2] then
      out[#out + 1] = { entry[1], entry[2][2] }
    else
      -- Deleted by somebody else: there is nothing left to do.
      redis.call('XACK', lane, group, entry[1])
    end
  end
end
return out
