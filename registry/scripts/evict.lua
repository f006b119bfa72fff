-- One sweep: remove what has expired, forget what was known long enough.  Called each second by
-- every registrar.  ARGV[2]: for how long guards hold, ms.
-- Returns {evicted keys, suspect keys, forgotten services}.
if is_unborn() then return UNBORN end
local guard_hold = tonumber(ARGV[2])
local last = tonumber(redis.call('HGET', META, 'last_tick') or '')
if last and (now < last or now - last > OUTAGE_GAP) then
  redis.call('HSET', META, 'outage_end', whole(now))
end
redis.call('HSET', META, 'last_tick', whole(now))
local outage_end = tonumber(redis.call('HGET', META, 'outage_end') or '')
-- Until when those are kept who could not renew; nil when that is over.
local held_until = outage_end and outage_end + OUTAGE_HOLD
if held_until and now >= held_until then held_until = nil end

-- Look at an instance whose lease is over again, not before *at*.  The score loses the end of the
-- lease, which nobody asks for any more: whoever is kept costs no look in between.
local function look_again(key, at)
  redis.call('ZADD', DEADLINES, whole(at - LATE), key)
end

-- Whether an operator has said that the guards shall not hold this service.
local function is_free(service)
  local ends = tonumber(redis.call('HGET', META, 'free:' .. service) or '')
  if not ends then return false end
  if now < ends then return true end
  redis.call('HDEL', META, 'free:' .. service)
  return false
end

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

-- What to do with an instance whose lease is over, the grace included: evict, suspect or keep.
-- *expires* is nil when it was looked at before, and put off until now.
local function verdict(key, entry, expires)
  if held_until and (not expires or expires - entry.lease <= outage_end) then
    look_again(key, held_until)
    return 'keep'
  end
  local state = state_name(entry)
  if state == 'suspect' and expires then
    look_again(key, now + guard_hold)  -- an older version made it one
    return 'keep'
  end
  if state ~= 'serving' then return 'evict' end
  local service = service_of(key)
  local own, zone = losses(service, entry.lease), losses('', entry.lease)
  local held = (is_mass_expiry(own) or is_mass_expiry(zone)) and not is_free(service)
  if not held then
    own.lost, zone.lost = own.lost + 1, zone.lost + 1
  end
  remember(service, own)
  remember('', zone)
  return held and 'suspect' or 'evict'
end

-- Those put off until now, then those whose lease is over: without the many of whom it is known
-- that an outage keeps them, or nobody else would have a turn.
local due = redis.call('ZRANGEBYSCORE', DEADLINES, '-inf', whole(now - LATE), 'WITHSCORES',
  'LIMIT', 0, MAX_EXAMINED)
local from = held_until and '(' .. whole(outage_end) or '0'
local over = redis.call('ZRANGEBYSCORE', DEADLINES, from, whole(now - GRACE), 'WITHSCORES',
  'LIMIT', 0, MAX_EXAMINED - #due / 2)
for i = 1, #over do
  due[#due + 1] = over[i]
end

local evicted, suspects, forgotten = {}, {}, {}
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
      'owner:' .. gone, 'free:' .. gone)
    announce('forgotten', gone)
    forgotten[#forgotten + 1] = gone
  else
    local entry = stored(member)
    if not entry then
      -- A deadline without an instance that we can read: nothing to serve, nothing to keep.
      redis.call('ZREM', DEADLINES, member)
    else
      local what = verdict(member, entry, expires >= 0 and expires or nil)
      if what == 'evict' then
        remove(member, 'evicted')
        evicted[#evicted + 1] = member
      elseif what == 'suspect' then
        local before = {state = entry.state, lease = entry.lease}
        entry.state = 'suspect'
        put(member, before, entry)
        look_again(member, now + guard_hold)
        suspects[#suspects + 1] = member
      end
    end
  end
end
return {evicted, suspects, forgotten}
