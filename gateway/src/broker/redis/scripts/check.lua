-- Quiet-channel check and re-sync: renews interest and tells which histories do not end where the node thinks.
-- KEYS[1] meta
-- ARGV[1] base, ARGV[2] replid (see meta.lua)
-- ARGV[3] node, ARGV[4] number of interests n, then those: `i:<channel>` or `w:<literal prefix>`
-- then 2 for each channel: channel, ID of its last entry as the node knows it
-- Result: { top, number of each channel whose history ends elsewhere, from 1; negative if there is none... }
local node, named, interests = ARGV[3], 4 + tonumber(ARGV[4]), interests_of(base)
for at = 5, named do
  interests.touch(node, ARGV[at])
end
open_meta()
if named > 4 then
  hold(node)
end
for at = 5, named do
  interests.register(node, ARGV[at])
end
local result, number = { tonumber(top) }, 0
for at = named + 1, #ARGV, 2 do
  number = number + 1
  local last = redis.call('XREVRANGE', base .. 'h:' .. ARGV[at], '+', '-', 'COUNT', 1)[1]
  if not last then
    result[#result + 1] = -number
  elseif last[1] ~= ARGV[at + 1] then
    result[#result + 1] = number
  end
end
return result
