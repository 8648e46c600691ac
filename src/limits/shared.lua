-- Leases from one budget that several proxies share. Reads the server's clock, so that theirs need not agree.
--
-- KEYS[1]  the budget: a hash, forgotten once nothing of it is used
-- ARGV     kind ("bucket", "fixed", "sliding"), tokens a second (bucket) or microseconds of a window, most tokens there are,
--          tokens used on credit (charged whatever is left; negative: given back), tokens wanted
-- returns  tokens leased, tokens left (negative if more was used than there was), microseconds until asking again is worth
--          while, microseconds for which what was leased may be used
local kind, pace, most = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local spent, wanted = tonumber(ARGV[4]), tonumber(ARGV[5])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local function read(...)
  local kept = redis.pcall('HMGET', KEYS[1], ...)
  if kept.err then
    -- Somebody has put something else there.
    redis.call('DEL', KEYS[1])
    return {}
  end
  return kept
end
local function write(ttl_us, ...)
  redis.call('HSET', KEYS[1], ...)
  redis.call('PEXPIRE', KEYS[1], math.ceil(ttl_us / 1000) + 1000)
end
-- What is worth coming back for.
local few = math.min(most, math.ceil(wanted / 2))
local function granted_of(left)
  return math.max(0, math.min(wanted, math.floor(left)))
end

if kind == 'bucket' then
  local kept = read('left', 'at')
  local left, at = tonumber(kept[1]) or most, tonumber(kept[2]) or now
  left = math.min(most, math.min(most, left + math.max(0, now - at) * pace / 1000000) - spent)
  local granted = granted_of(left)
  left = left - granted
  local retry = 0
  if granted < wanted and left < few then
    retry = (few - left) * 1000000 / pace
  end
  write((most - left) * 1000000 / pace, 'left', string.format('%.6f', left), 'at', string.format('%.0f', now))
  return {granted, math.floor(left), math.ceil(retry), 1000000}
end

local width = pace
local number, elapsed = math.floor(now / width), now % width
local kept = read('number', 'current', 'previous')
local current, previous = tonumber(kept[2]) or 0, tonumber(kept[3]) or 0
local passed = number - (tonumber(kept[1]) or number)
if passed > 0 then
  -- Each window that ends takes its limit off what is owed.
  previous = math.min(most, math.max(0, current - (passed - 1) * most))
  current = math.max(0, current - passed * most)
end
local covered = 0
if kind == 'sliding' then
  covered = math.floor(previous * (width - elapsed) / width + 0.5)
end
current = current + spent
local left = most - covered - current
local granted = granted_of(left)
current, left = current + granted, left - granted
local retry = 0
if granted < wanted and left < few then
  local windows = math.max(1, math.ceil((current + few - most) / most))
  retry = width - elapsed + (windows - 1) * width
  if kind == 'sliding' and previous > 0 and current + few <= most then
    -- Once so little of the window before is covered that it fits.
    retry = math.max(0, width - elapsed - width * (most - few - current + 0.5) / previous)
  end
end
write(width * (2 + math.ceil(current / most)), 'number', string.format('%.0f', number),
  'current', string.format('%.0f', current), 'previous', string.format('%.0f', previous))
return {granted, left, math.ceil(retry), width - elapsed}
