-- Raise the revision once per life of this store: it may have lost its last writes.
-- Also when the caller has seen a higher one: then it has.  Returns the revision.
local revision = tonumber(redis.call('HGET', META, 'revision') or '0')
if is_unborn() then
  local before = revision
  revision = math.max(revision, KNOWN, math.floor(now / 1000)) + EPOCH_STEP
  redis.call('HSET', META, 'replid', replication_id(), 'revision', whole(revision))
  redis.call('XADD', CHANGES, 'MAXLEN', '~', MAX_STREAM, '*', 'r', whole(revision),
    'p', whole(before), 'k', 'raised', 'm', '')
end
return whole(revision)
