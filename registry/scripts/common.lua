-- What every script begins with.  KEYS: instances deadlines changes meta (see keys.py).
-- Times are milliseconds of this server's clock; it alone decides what has expired.
local INSTANCES, DEADLINES, CHANGES, META = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

local function whole(number)
  return string.format('%.0f', number)
end

-- A stored value as a table; nil when it is not as we write it (then it is as if absent).
local function parse(value)
  if not value then return nil end
  local head, state, found, json = string.match(value, '^([^\n]*)\n([^\n]*)\n([^\n]*)\n([^\n]*)$')
  if not head then return nil end
  local format, revision, lease_id, registered, generation, lease =
    string.match(head, '^(%S+) (%d+) (%S+) (%d+) (%d+) (%d+)$')
  if not format then return nil end
  return {
    format = format, revision = revision, lease_id = lease_id, registered = registered,
    generation = tonumber(generation), lease = tonumber(lease),
    state = state, found = found, json = json,
  }
end

local function stored(key)
  return parse(redis.call('HGET', INSTANCES, key))
end

local function render(entry)
  local head = table.concat({
    entry.format, entry.revision, entry.lease_id, entry.registered,
    whole(entry.generation), whole(entry.lease),
  }, ' ')
  return table.concat({head, entry.state, entry.found, entry.json}, '\n')
end

local function service_of(key)
  return string.match(key, '^[^/]*')
end

local function state_name(entry)
  return string.match(entry.state, '^%S*')
end

local function counts_as_serving(entry)
  return entry ~= nil and entry.lease > 0 and state_name(entry) == 'serving'
end

local function add(field, amount)
  if redis.call('HINCRBY', META, field, amount) == 0 then
    redis.call('HDEL', META, field)
  end
end

-- Keep the numbers that the guards need: serving leases of the service and of the zone.
local function recount(service, before, after)
  local change = (counts_as_serving(after) and 1 or 0) - (counts_as_serving(before) and 1 or 0)
  if change ~= 0 then
    add('serving:' .. service, change)
    add('serving:', change)
  end
end

local function announce(kind, member, ...)
  local revision = redis.call('HINCRBY', META, 'revision', 1)
  redis.call('XADD', CHANGES, 'MAXLEN', '~', MAX_STREAM, '*', 'r', whole(revision),
    'p', whole(revision - 1), 'k', kind, 'm', member, ...)
  return revision
end

-- Store what changed in an instance, and say so.
local function put(key, before, entry)
  local service = service_of(key)
  entry.revision = whole(tonumber(redis.call('HGET', META, 'revision') or '0') + 1)
  local value = render(entry)
  local spelling = redis.call('HGET', META, 'name:' .. service) or service
  redis.call('HSET', INSTANCES, key, value)
  announce('up', key, 'v', value, 'n', spelling)
  recount(service, before, entry)
  return value, spelling
end

local function set_deadline(key, lease)
  if lease > 0 then
    redis.call('ZADD', DEADLINES, whole(now + lease), key)
  else
    redis.call('ZREM', DEADLINES, key)
  end
end

-- A renewed suspect serves again; the value, and whether that was a change.
local function unsuspect(key, entry)
  if state_name(entry) ~= 'suspect' then return nil end
  entry.state = 'serving'
  return put(key, nil, entry)
end

-- Remove an instance and say so, also when it is unknown: a reader may still hold it.
local function remove(key, reason)
  local service, entry = service_of(key), stored(key)
  redis.call('HDEL', INSTANCES, key)
  redis.call('ZREM', DEADLINES, key)
  local revision = announce('down', key, 'w', reason)
  if not entry then return false end
  recount(service, entry, nil)
  local ends = whole(now + KNOWN_LEASES * (entry.lease > 0 and entry.lease or STATIC_LEASE))
  redis.call('HSET', META, 'dead:' .. key, whole(revision) .. ' ' .. whole(entry.generation))
  redis.call('ZADD', DEADLINES, ends, '~dead:' .. key)
  add('count:' .. service, -1)
  if not redis.call('HGET', META, 'count:' .. service) then
    redis.call('HSET', META, 'gone:' .. service, render(entry))
    redis.call('ZADD', DEADLINES, ends, '~gone:' .. service)
  end
  return true
end
