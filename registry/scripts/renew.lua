-- Renew one lease.  ARGV: key, lease id ('' for any).
-- Returns {renewed, lease ms} or {missing} or {superseded}.
local key, lease_id = ARGV[1], ARGV[2]
local entry = stored(key)
if not entry then return {'missing'} end
if lease_id ~= '' and lease_id ~= entry.lease_id then return {'superseded'} end
set_deadline(key, entry.lease)
unsuspect(key, entry)
return {'renewed', whole(entry.lease)}
