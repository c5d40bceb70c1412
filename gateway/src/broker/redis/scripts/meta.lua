-- Shared beginning of the scripts that must know whether the server may have lost writes.
-- KEYS[1] meta: hash { replid, floor, top, forgot } of the partition
-- ARGV[1] base: what every key of the partition starts with, `<prefix>:{<tag>}:`
-- ARGV[2] replid: master_replid that the caller read on this connection
-- Numbers are kept as strings or printed with `num`: `..` would print 1e14 as `1e+14`. Exact up to 2^53.
local base, replid = ARGV[1], ARGV[2]
local clock = redis.call('TIME')
-- In ms, as text and as number.
local time = clock[1] .. string.sub('00000' .. clock[2], -6, -4)
local now = tonumber(time)
-- Epochs stay the text that they come as: to make a number of one costs half as much as a command.
local floor_epoch, top, raised, forgot

local function num(n)
  return string.format('%.0f', n)
end

local function lower(epoch, other)
  return #epoch < #other or (#epoch == #other and epoch < other)
end

local function split(id)
  local epoch, offset = string.match(id, '^(%d+)-(%d+)$')
  return epoch, tonumber(offset)
end

-- Reads meta. Under another replid something may have been lost: whoever comes first raises floor and top, so that
-- no epoch of before is ever continued. A caller whose connection has outlived a change of the replid must not: it
-- would take the partition back to the former one. It gets STALEID before anything is written, and connects anew.
local function open_meta()
  local meta = redis.call('HMGET', KEYS[1], 'replid', 'floor', 'top', 'forgot')
  floor_epoch, top, forgot = meta[2] or '0', meta[3] or '0', meta[4] or ''
  raised = meta[1] ~= replid
  if raised then
    -- Seldom, as INFO costs as much as a publish.
    if meta[1] and meta[1] == string.match(redis.call('INFO', 'replication'), 'master_replid:(%w+)') then
      error({ err = 'STALEID the replication id of this server is another than this connection was told' })
    end
    top = num(math.max(now, tonumber(top) + 1))
    floor_epoch = top
    redis.call('HSET', KEYS[1], 'replid', replid, 'floor', top, 'top', top)
  end
end
