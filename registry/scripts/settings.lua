-- Set how many records an answer of a service may have.  ARGV[2…]: folded service, number (0: all).
-- Returns {done, revision}, or {missing} when the service is not known.
if is_unborn() then return UNBORN end
local service, answers = ARGV[2], ARGV[3]
if redis.call('HEXISTS', META, 'name:' .. service) == 0 then return {'missing'} end
local field = 'answers:' .. service
if (redis.call('HGET', META, field) or '0') ~= answers then
  if answers == '0' then
    redis.call('HDEL', META, field)
  else
    redis.call('HSET', META, field, answers)
  end
  announce('settings', service, 'a', answers)
end
return {'done', redis.call('HGET', META, 'revision') or '0'}
