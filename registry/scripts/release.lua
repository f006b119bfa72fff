-- Let the guards hold nobody of a service for a while, and evict the suspects that they held.
-- ARGV[2…]: folded service, for so many ms, keys…
-- Returns {evicted, revision}, or {missing} when the service is not known.
if is_unborn() then return UNBORN end
local service, hold = ARGV[2], tonumber(ARGV[3])
if redis.call('HEXISTS', META, 'name:' .. service) == 0 then return {'missing'} end
redis.call('HSET', META, 'free:' .. service, whole(now + hold))
local evicted = 0
for i = 4, #ARGV do
  local entry = stored(ARGV[i])
  if entry and state_name(entry) == 'suspect' and service_of(ARGV[i]) == service then
    remove(ARGV[i], 'evicted')
    evicted = evicted + 1
  end
end
return {evicted, redis.call('HGET', META, 'revision') or '0'}
