-- Take or keep a role that one process has at a time.  ARGV: role, holder, ms.  Returns 1 or 0.
local field, holder, ms = 'role:' .. ARGV[1], ARGV[2], tonumber(ARGV[3])
local owner, ends = string.match(redis.call('HGET', META, field) or '', '^(%S+) (%d+)$')
if owner and owner ~= holder and now < tonumber(ends) then return 0 end
redis.call('HSET', META, field, holder .. ' ' .. whole(now + ms))
return 1
