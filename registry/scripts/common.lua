-- What every script begins with.  KEYS: instances deadlines changes meta (see keys.py).
-- ARGV[1]: the highest revision that the caller has seen.
-- Times are milliseconds of this server's clock; it alone decides what has expired.
local INSTANCES, DEADLINES, CHANGES, META = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local KNOWN = tonumber(ARGV[1])
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

local function whole(number)
  return string.format('%.0f', number)
end

local function replication_id()
  return string.match(redis.call('INFO', 'replication'), 'master_replid:(%w+)')
end

-- Whether this life of the store (new, flushed, promoted, restarted) has no revisions of its own
-- yet, or has lost some that the caller has seen: then nothing may be granted one before epoch.lua
-- has raised them.  Asked before anything is written.
local function is_unborn()
  local meta = redis.call('HMGET', META, 'replid', 'revision')
  return meta[1] ~= replication_id() or tonumber(meta[2] or '0') < KNOWN
end

local UNBORN = {'unborn'}

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

-- Whether readers are told that somebody left whom this store does not know: one of them may
-- still hold it.  Not twice of one, and of no more than MAX_UNKNOWN a minute: whoever makes names
-- up would push everything else out of the stream.
local function may_announce_unknown(key)
  if redis.call('HEXISTS', META, 'dead:' .. key) == 1 then return false end
  local ends, told = string.match(redis.call('HGET', META, 'unknown') or '', '^(%d+) (%d+)$')
  ends, told = tonumber(ends), tonumber(told)
  if not ends or now >= ends or ends > now + UNKNOWN_WINDOW then
    ends, told = now + UNKNOWN_WINDOW, 0
  end
  if told >= MAX_UNKNOWN then return false end
  redis.call('HSET', META, 'unknown', whole(ends) .. ' ' .. whole(told + 1))
  return true
end

-- Remove an instance and say so; whether it was there.
local function remove(key, reason)
  local service, entry = service_of(key), stored(key)
  redis.call('HDEL', INSTANCES, key)
  redis.call('ZREM', DEADLINES, key)
  if not entry then
    if may_announce_unknown(key) then announce('down', key, 'w', reason) end
    return false
  end
  local revision = announce('down', key, 'w', reason)
  recount(service, entry, nil)
  local ends = now + KNOWN_LEASES * (entry.lease > 0 and entry.lease or STATIC_LEASE)
  -- The sweep looks at everything a grace later than its score.
  local score = whole(ends - GRACE)
  redis.call('HSET', META, 'dead:' .. key, whole(revision) .. ' ' .. whole(entry.generation))
  redis.call('ZADD', DEADLINES, score, '~dead:' .. key)
  add('count:' .. service, -1)
  if not redis.call('HGET', META, 'count:' .. service) then
    redis.call('HSET', META, 'gone:' .. service, render(entry))
    redis.call('ZADD', DEADLINES, score, '~gone:' .. service)
  end
  return true
end
