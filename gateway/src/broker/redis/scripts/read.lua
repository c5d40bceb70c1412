-- Reads ranges of several channels of one partition.
-- KEYS[1] meta
-- ARGV[1] base, ARGV[2] replid (see meta.lua)
-- ARGV[3] greatest number of entries in all
-- then 5 for each channel: channel, history size, ms to keep it, mode, at (see read_channel in history.lua)
-- Result: { now, top, what read_channel answers for each channel... }; the last ones are missing when the
--   greatest number is reached before them: ask for them again
open_meta()
local left, result = tonumber(ARGV[3]), { now, top }
for at = 4, #ARGV, 5 do
  if left <= 0 then
    break
  end
  local answer = read_channel(ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4], left)
  left = left - #answer[6]
  result[#result + 1] = answer
end
return result
