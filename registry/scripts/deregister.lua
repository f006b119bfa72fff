-- Remove instances for good.  ARGV[2…]: lease id ('' for any), service ('' when only the keys that
-- follow are meant, else all of it), keys…   Returns {removed, revision}; {-1} when superseded.
if is_unborn() then return UNBORN end
local lease_id, service = ARGV[2], ARGV[3]
if lease_id ~= '' then
  local entry = stored(ARGV[4])
  if entry and entry.lease_id ~= lease_id then return {-1} end
end
local removed = 0
for i = 4, #ARGV do
  if remove(ARGV[i], 'deregistered') then removed = removed + 1 end
end
-- The caller's list may lack what registered a moment ago elsewhere.
if service ~= '' and redis.call('HGET', META, 'count:' .. service) then
  local left = {}
  for _, key in ipairs(redis.call('HKEYS', INSTANCES)) do
    if service_of(key) == service then left[#left + 1] = key end
  end
  table.sort(left)
  for _, key in ipairs(left) do
    if remove(key, 'deregistered') then removed = removed + 1 end
  end
end
return {removed, redis.call('HGET', META, 'revision') or '0'}
