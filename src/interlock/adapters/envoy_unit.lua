-- Who is asking: sets x-interlock-unit (a salted hash, by which routes choose the version) and x-interlock-request.
--
-- The route configuration's filter context says by what a user is known: `cookie` and `cookie_pattern`, or `header`;
-- with neither, or without that header, it is the client's network address. `core/assignment.py` computes the same hash.

local tobit, bxor, rshift, lshift, band = bit.tobit, bit.bxor, bit.rshift, bit.lshift, bit.band
local byte, match, format = string.byte, string.match, string.format

math.randomseed(tonumber(match(tostring({}), "0x(%x+)"), 16) % 2147483648 + os.time() % 1000000007 + os.clock() * 1e6)
local life = format("%08x", math.random(0, 4294967295))
local count = 0

-- a * b modulo 2^32: the product of two such numbers does not fit into a double.
local function multiply(a, b)
  return tobit(a * band(b, 0xffff) + lshift(a * rshift(b, 16), 16))
end

local function murmur2(text)
  local m, rest, at = 0x5bd1e995, #text, 1
  local value = rest
  while rest >= 4 do
    local one, two, three, four = byte(text, at, at + 3)
    local word = multiply(m, tobit(one + two * 256 + three * 65536 + four * 16777216))
    word = multiply(m, bxor(word, rshift(word, 24)))
    value = bxor(multiply(m, value), word)
    at, rest = at + 4, rest - 4
  end
  if rest >= 3 then value = bxor(value, lshift(byte(text, at + 2), 16)) end
  if rest >= 2 then value = bxor(value, lshift(byte(text, at + 1), 8)) end
  if rest >= 1 then value = multiply(m, bxor(value, byte(text, at))) end
  value = multiply(m, bxor(value, rshift(value, 13)))
  return bxor(value, rshift(value, 15)) % 4294967296
end

function envoy_on_request(handle)
  local headers, context = handle:headers(), handle:filterContext()
  -- What a client says of itself does not count.
  headers:remove("x-interlock-unit")
  count = count + 1
  headers:replace("x-interlock-request", life .. count)
  local unit
  local pattern, name = context:get("cookie_pattern"), context:get("header")
  if pattern then
    local jar = headers:get("cookie")
    unit = jar and match(";" .. jar, pattern)
    if not unit then
      unit = format("%08x%08x", math.random(0, 4294967295), math.random(0, 4294967295))
      handle:streamInfo():dynamicMetadata():set("interlock", "unit", unit)
      handle:streamInfo():dynamicMetadata():set("interlock", "cookie", context:get("cookie"))
      if headers:get("x-forwarded-proto") == "https" then
        handle:streamInfo():dynamicMetadata():set("interlock", "secure", true)
      end
    end
  elseif name then
    unit = headers:get(name)
  end
  if not unit or unit == "" then
    local address = handle:streamInfo():downstreamRemoteAddress()
    unit = match(address, "^(.*):%d+$") or address
  end
  headers:replace("x-interlock-unit", format("%.0f", murmur2(context:get("salt") .. ":" .. unit)))
  handle:clearRouteCache()
end

function envoy_on_response(handle)
  local made = handle:streamInfo():dynamicMetadata():get("interlock")
  if made then
    local secure = made["secure"] and "; Secure" or ""
    handle:headers():add(
      "set-cookie",
      made["cookie"] .. "=" .. made["unit"] .. "; Path=/; Max-Age=2592000; HttpOnly; SameSite=Lax" .. secure
    )
  end
end
