-- Replace the state or the found addresses of an instance, by compare-and-set.
-- ARGV[2…]: key, expected revision ('' for any), state|found, text.
-- Returns {done, value, service as first spelled}, {missing} or {conflict, revision}.
if is_unborn() then return UNBORN end
local key, expected, field, text = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local entry = stored(key)
if not entry then return {'missing'} end
if expected ~= '' and expected ~= entry.revision then return {'conflict', entry.revision} end
local service = service_of(key)
if entry[field] == text then
  return {'done', render(entry), redis.call('HGET', META, 'name:' .. service) or service}
end
local before = {state = entry.state, lease = entry.lease}
entry[field] = text
local value, spelling = put(key, before, entry)
return {'done', value, spelling}
