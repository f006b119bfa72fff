-- Renew leases.  ARGV[2…]: key, lease id ('' for any), key, lease id…
-- Returns for each the lease in ms, MISSING or SUPERSEDED.
local MISSING, SUPERSEDED = -1, -2
local keys, results, deadlines = {}, {}, {}
for i = 2, #ARGV, 2 do
  keys[#keys + 1] = ARGV[i]
end
local values = redis.call('HMGET', INSTANCES, unpack(keys))
for i, key in ipairs(keys) do
  local entry, lease_id = parse(values[i]), ARGV[2 * i + 1]
  if not entry then
    results[i] = MISSING
  elseif lease_id ~= '' and lease_id ~= entry.lease_id then
    results[i] = SUPERSEDED
  else
    if state_name(entry) == 'suspect' then
      -- Nothing of this call is lost when it is made again.
      if is_unborn() then return UNBORN end
      -- It may stand twice in this call.
      unsuspect(key, stored(key))
    end
    if entry.lease > 0 then
      deadlines[#deadlines + 1] = whole(now + entry.lease)
      deadlines[#deadlines + 1] = key
    end
    results[i] = entry.lease
  end
end
if #deadlines > 0 then
  redis.call('ZADD', DEADLINES, unpack(deadlines))
end
return results
