-- One sweep: remove what has expired, forget what was known long enough.  Called each second by
-- every registrar.  Returns {evicted keys, suspect keys, forgotten services}.
local last = tonumber(redis.call('HGET', META, 'last_tick') or '')
if last and (now < last or now - last > OUTAGE_GAP) then
  redis.call('HSET', META, 'outage_end', whole(now))
end
redis.call('HSET', META, 'last_tick', whole(now))
local outage_end = tonumber(redis.call('HGET', META, 'outage_end') or '')

-- The window of losses that one at this moment falls into (lease.py: losses_at).
local function losses(scope, lease)
  local ends, base, lost = string.match(redis.call('HGET', META, 'lost:' .. scope) or '',
    '^(%d+) (%d+) (%d+)$')
  if ends and now < tonumber(ends) then
    return {ends = tonumber(ends), base = tonumber(base), lost = tonumber(lost)}
  end
  local serving = tonumber(redis.call('HGET', META, 'serving:' .. scope) or '0')
  return {ends = now + lease, base = serving, lost = 0}
end

local function is_mass_expiry(window)
  return window.base >= GUARD_MIN and (window.lost + 1) * 2 > window.base
end

local function remember(scope, window)
  redis.call('HSET', META, 'lost:' .. scope,
    whole(window.ends) .. ' ' .. whole(window.base) .. ' ' .. whole(window.lost))
end

local function verdict(key, entry, expires)
  if now < expires + GRACE then return 'keep' end
  if outage_end and expires - entry.lease <= outage_end and now < outage_end + OUTAGE_HOLD then
    return 'keep'
  end
  local state = state_name(entry)
  if state == 'suspect' then
    return now >= expires + GRACE + GUARD_HOLD and 'evict' or 'keep'
  end
  if state ~= 'serving' then return 'evict' end
  local service = service_of(key)
  local own, zone = losses(service, entry.lease), losses('', entry.lease)
  local held = is_mass_expiry(own) or is_mass_expiry(zone)
  if not held then
    own.lost, zone.lost = own.lost + 1, zone.lost + 1
  end
  remember(service, own)
  remember('', zone)
  return held and 'suspect' or 'evict'
end

local evicted, suspects, forgotten = {}, {}, {}
local due = redis.call('ZRANGEBYSCORE', DEADLINES, '-inf', whole(now), 'WITHSCORES',
  'LIMIT', 0, MAX_EXAMINED)
for i = 1, #due, 2 do
  if #evicted + #suspects + #forgotten >= MAX_EVICTIONS then break end
  local member, expires = due[i], tonumber(due[i + 1])
  local dead, gone = string.match(member, '^~dead:(.*)$'), string.match(member, '^~gone:(.*)$')
  if dead then
    redis.call('ZREM', DEADLINES, member)
    redis.call('HDEL', META, 'dead:' .. dead)
  elseif gone then
    redis.call('ZREM', DEADLINES, member)
    redis.call('HDEL', META, 'gone:' .. gone, 'name:' .. gone, 'lost:' .. gone,
      'owner:' .. gone)
    announce('forgotten', gone)
    forgotten[#forgotten + 1] = gone
  else
    local entry = stored(member)
    if not entry then
      -- A deadline without an instance that we can read: nothing to serve, nothing to keep.
      redis.call('ZREM', DEADLINES, member)
    else
      local what = verdict(member, entry, expires)
      if what == 'evict' then
        remove(member, 'evicted')
        evicted[#evicted + 1] = member
      elseif what == 'suspect' then
        local before = {state = entry.state, lease = entry.lease}
        entry.state = 'suspect'
        put(member, before, entry)
        suspects[#suspects + 1] = member
      end
    end
  end
end
return {evicted, suspects, forgotten}
