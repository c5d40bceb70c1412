-- Reads the record by which a session is resumed, and numbers who resumes it.
-- KEYS[1] session: hash
-- Result: { 0 } if there is none, else { tenure: greater than all that were given out before, record }
local found = redis.call('HMGET', KEYS[1], 'record', 'tenure', 'given')
if not found[1] then
  return { 0 }
end
local tenure = math.max(tonumber(found[2] or '0'), tonumber(found[3] or '0')) + 1
redis.call('HSET', KEYS[1], 'given', string.format('%.0f', tenure))
return { tenure, found[1] }
