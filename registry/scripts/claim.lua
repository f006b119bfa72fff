-- Take or keep a role that one process has at a time.  ARGV[2…]: role, holder, ms.  Returns 1 or 0.
local field, holder, ms = 'role:' .. ARGV[2], ARGV[3], tonumber(ARGV[4])
local owner, ends = string.match(redis.call('HGET', META, field) or '', '^(%S+) (%d+)$')
if owner and owner ~= holder and now < tonumber(ends) then return 0 end
redis.call('HSET', META, field, holder .. ' ' .. whole(now + ms))
return 1
