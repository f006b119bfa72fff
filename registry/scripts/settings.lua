-- Set how many records an answer of a service may have.  ARGV: folded service, number (0: all).
-- Returns {done, revision}, or {missing} when the service is not known.
local service, answers = ARGV[1], ARGV[2]
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
