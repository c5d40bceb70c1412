-- Registers a node's interest in a pattern and lists the channels with history that it matches.
-- KEYS[1] meta
-- ARGV[1] base, ARGV[2] replid (see meta.lua)
-- ARGV[3] node, ARGV[4] pattern, ARGV[5] its literal prefix
-- ARGV[6] greatest number of channels in the answer, ARGV[7] greatest number of names to look at
-- Result: { now, top, '1' if there are more, then name, first ID and last ID of each channel }
redis.call('EXISTS', KEYS[1])
local interests = interests_of(base)
interests.touch(ARGV[3], 'w:' .. ARGV[5])
open_meta()
local node, pattern, prefix = ARGV[3], ARGV[4], ARGV[5]
local most, look = tonumber(ARGV[6]), tonumber(ARGV[7])
hold(node)
interests.register(node, 'w:' .. prefix)

-- The pattern as a Lua pattern; a last `**` is tried apart, as zero or as more segments.
local rest = string.sub(pattern, -2) == '**'
local body = rest and string.sub(pattern, 1, -4) or pattern
body = string.gsub(body, '[%^%$%(%)%%%.%[%]%+%-%?]', '%%%0')
body = string.gsub(body, '%*', '[^%%.]+')
local function matches(name)
  if rest and pattern == '**' then
    return true
  end
  return string.find(name, '^' .. body .. '$') or (rest and string.find(name, '^' .. body .. '%.'))
end

-- Names under the prefix lie between it and the same followed by `/`, the byte after the dot.
local from = prefix == '' and '-' or '[' .. prefix
local to = prefix == '' and '+' or '(' .. prefix .. '/'
local result, found, more, looked = { now, top, '0' }, 0, false, 0
repeat
  local names = redis.call('ZRANGEBYLEX', base .. 'chans', from, to, 'LIMIT', 0, 500)
  for _, name in ipairs(names) do
    if matches(name) then
      local key = base .. 'h:' .. name
      local last = redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1)[1]
      if last then
        if found == most then
          more = true
          break
        end
        found = found + 1
        result[#result + 1] = name
        result[#result + 1] = redis.call('XRANGE', key, '-', '+', 'COUNT', 1)[1][1]
        result[#result + 1] = last[1]
      end
    end
  end
  looked = looked + #names
  if #names == 500 then
    from = '(' .. names[500]
    more = more or looked >= look
  end
until #names < 500 or more
if more then
  result[3] = '1'
end
return result
