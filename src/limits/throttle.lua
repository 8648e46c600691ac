-- CL.THROTTLE as redis-cell 0.4 has it: GCRA over one key, which holds the theoretical arrival time in nanoseconds.
--
-- KEYS[1]  the key
-- ARGV     max_burst, count, period in seconds, quantity (1 if it is left out)
-- returns  1 if limited, limit, remaining, seconds until a retry may succeed (-1 if it was allowed, or never will be), seconds until
--          the limit is as if nothing had been asked
local function refuse(text)
  return redis.error_reply('Cell error: ' .. text)
end
if #KEYS ~= 1 or (#ARGV ~= 3 and #ARGV ~= 4) then
  return refuse('Store error: Usage: cl.throttle <key> <max_burst> <count per period> <period> [<quantity>]')
end
local numbers = {}
for at, text in ipairs(ARGV) do
  if not string.match(text, '^[+-]?%d+$') then
    return refuse("Store error: Couldn't parse as integer: " .. text)
  end
  numbers[at] = tonumber(text)
end
local burst, count, period, quantity = numbers[1], numbers[2], numbers[3], numbers[4] or 1
local function truncated(number)
  return number < 0 and math.ceil(number) or math.floor(number)
end
local interval = count == 0 and 0 or truncated(period * 1000000000 / count)
if interval == 0 then
  return refuse('Store error: Zero rates are not supported')
end
local limit = burst + 1
local tolerance = interval * limit

-- Nanoseconds since the epoch are more than a Lua number holds: only differences from now are calculated with.
local time = redis.call('TIME')
local now_s, now_ns = tonumber(time[1]), tonumber(time[2]) * 1000
local kept = redis.call('GET', KEYS[1])
local ahead = 0
if kept then
  local seconds, rest = string.match(kept, '^(%d+)(%d%d%d%d%d%d%d%d%d)$')
  if not seconds then
    return refuse('invalid digit found in string')
  end
  ahead = (tonumber(seconds) - now_s) * 1000000000 + (tonumber(rest) - now_ns)
end
local increment = interval * quantity
local new_ahead = math.max(ahead, 0) + increment
local limited, retry, reset = 0, -1000000000, new_ahead
if new_ahead > tolerance then
  limited, reset = 1, ahead
  if increment <= tolerance then
    retry = new_ahead - tolerance
  end
else
  local ttl_ms = truncated(new_ahead / 1000000)
  if ttl_ms > 0 then
    local at_ns = now_ns + new_ahead
    local carried = math.floor(at_ns / 1000000000)
    local at = string.format('%.0f%09.0f', now_s + carried, at_ns - carried * 1000000000)
    redis.call('SET', KEYS[1], at, 'PX', string.format('%.0f', ttl_ms))
  elseif kept then
    redis.call('DEL', KEYS[1])
  end
end
local remaining, free = 0, tolerance - reset
if free > -interval then
  -- Of whole microseconds, unless the interval is shorter than one.
  local unit = interval >= 1000 and 1000 or 1
  remaining = truncated(truncated(free / unit) / truncated(interval / unit))
end
-- A part of a second counts as a whole one, from a millisecond on.
local function seconds(ns)
  local whole = truncated(ns / 1000000000)
  return truncated((ns - whole * 1000000000) / 1000000) > 0 and whole + 1 or whole
end
return {limited, limit, remaining, seconds(retry), seconds(reset)}
