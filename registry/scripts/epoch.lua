-- Raise the revision once per life of this store: it may have lost its last writes.
-- ARGV: replication id, highest revision the caller knows, Unix time.  Returns the revision.
local replid, known, seconds = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local revision = tonumber(redis.call('HGET', META, 'revision') or '0')
if redis.call('HGET', META, 'replid') ~= replid then
  local before = revision
  revision = math.max(revision, known, seconds) + EPOCH_STEP
  redis.call('HSET', META, 'replid', replid, 'revision', whole(revision))
  redis.call('XADD', CHANGES, 'MAXLEN', '~', MAX_STREAM, '*', 'r', whole(revision),
    'p', whole(before), 'k', 'raised', 'm', '')
end
return whole(revision)
