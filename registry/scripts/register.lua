-- Grant a lease, or renew it when the registration is the same to the byte.
-- ARGV[2…]: key, service as spelled, lease id, generation, lease ms, found addresses, JSON, format,
-- owner ('' for none), state and reason in which it begins ('' for serving).
-- Returns {created|changed|renewed|superseded|owned, value or known generation or owner, service
-- as first spelled}.
if is_unborn() then return UNBORN end
local key, spelled, lease_id, generation = ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local lease, found, json, format = tonumber(ARGV[6]), ARGV[7], ARGV[8], ARGV[9]
local owner, begins = ARGV[10], ARGV[11]
local service, old = service_of(key), stored(key)

if owner ~= '' then
  local holder = redis.call('HGET', META, 'owner:' .. service)
  if holder and holder ~= owner then return {'owned', holder, ''} end
end

local known = 0
if old then
  known = old.generation
else
  local tombstone = redis.call('HGET', META, 'dead:' .. key)
  if tombstone then known = tonumber(string.match(tombstone, ' (%d+)$')) or 0 end
end
if generation > 0 and generation < known then
  return {'superseded', whole(known), ''}
end
local newer = generation > known
if not newer then generation = known end
set_deadline(key, lease)

-- A state that was set stays; what serves, or is new, takes the one that is asked for.
local is_free = not old or state_name(old) == 'serving' or state_name(old) == 'suspect'
local is_same = old and old.json == json
if is_same and (begins == '' or not is_free) then
  if newer then old.lease_id = lease_id end
  old.generation = generation
  local value, spelling = unsuspect(key, old)
  if value then return {'changed', value, spelling} end
  value = render(old)
  if newer then redis.call('HSET', INSTANCES, key, value) end
  return {'renewed', value, redis.call('HGET', META, 'name:' .. service) or service}
end

redis.call('HSETNX', META, 'name:' .. service, spelled)
if owner ~= '' then redis.call('HSETNX', META, 'owner:' .. service, owner) end
redis.call('HDEL', META, 'dead:' .. key, 'gone:' .. service)
redis.call('ZREM', DEADLINES, '~dead:' .. key, '~gone:' .. service)
if not old then add('count:' .. service, 1) end
local state = begins ~= '' and begins or 'serving'
if not is_free then state = old.state end
if is_same and not newer then lease_id = old.lease_id end
local value, spelling = put(key, old, {
  format = format, lease_id = lease_id, registered = old and old.registered or whole(now),
  generation = generation, lease = lease, state = state, found = found, json = json,
})
return {old and 'changed' or 'created', value, spelling}
