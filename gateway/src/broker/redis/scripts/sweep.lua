-- Shared reaping of the catalogue.

-- `gone`: channel -> `<epoch>@<ms>`, the highest epoch that its history may have had, and when its loss was noticed;
-- without the time if a reader noticed it; after a `+` if the channel has had another history since.
--
-- Looks at the next `count` names of the catalogue, after the one that `meta.swept` says. A name without history gets
-- its entry in `gone`; a day later it is forgotten. What then cannot be told any more is told by `meta.forgot`: every
-- history up to that epoch may have been lost.
local function sweep(count)
  local meta = redis.call('HMGET', KEYS[1], 'swept', 'top', 'forgot')
  local from = meta[1] and meta[1] ~= '' and '(' .. meta[1] or '-'
  local names = redis.call('ZRANGEBYLEX', base .. 'chans', from, '+', 'LIMIT', 0, count)
  local forgot = tonumber(meta[3] or '') or 0
  for _, name in ipairs(names) do
    if redis.call('EXISTS', base .. 'h:' .. name) == 0 then
      local lost, noticed = string.match(redis.call('HGET', base .. 'gone', name) or '', '^(%d+)@?(%d*)$')
      if not lost or noticed == '' then
        -- What a reader noted stays; a note of a loss before the history that is gone now does not.
        redis.call('HSET', base .. 'gone', name, (lost or meta[2] or '0') .. '@' .. string.format('%.0f', now))
      elseif tonumber(noticed) < now - 86400000 then
        lost = tonumber(lost)
        redis.call('ZREM', base .. 'chans', name)
        redis.call('HDEL', base .. 'gone', name)
        if lost > forgot then
          forgot = lost
          redis.call('HSET', KEYS[1], 'forgot', string.format('%.0f', lost))
        end
      end
    end
  end
  redis.call('HSET', KEYS[1], 'swept', #names == count and names[count] or '')
end
