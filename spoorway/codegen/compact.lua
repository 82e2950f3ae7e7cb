-- Writes compact frames, version 1. Lua 5.1 to 5.4 and LuaJIT; no bit library, no globals.
local NAMED, SEALED, EARLIER, BATCH = 1, 2, 4, 8
local LARGEST_FRAME = 257

local function xor(a, b)
  local sum, place = 0, 1
  while a > 0 or b > 0 do
    local x, y = a % 2, b % 2
    if x ~= y then sum = sum + place end
    a, b, place = (a - x) / 2, (b - y) / 2, place * 2
  end
  return sum
end

local crc_of_byte
local function crc16(text)
  if not crc_of_byte then
    crc_of_byte = {}
    for byte = 0, 255 do
      local crc = byte * 256
      for _ = 1, 8 do
        crc = crc >= 32768 and xor(crc * 2 - 65536, 0x1021) or crc * 2
      end
      crc_of_byte[byte] = crc
    end
  end
  local crc = 0xFFFF
  for i = 1, #text do
    local low = crc % 256
    crc = xor(low * 256, crc_of_byte[xor((crc - low) / 256, text:byte(i))])
  end
  return crc
end

local function number(n)
  local out = ""
  while n > 127 do
    local low = n % 128
    out = out .. string.char(low + 128)
    n = (n - low) / 128
  end
  return out .. string.char(n)
end

-- The number of a value on the wire; nil for what the wire cannot hold.
local function code(field, value)
  if field.values then
    for i, each in ipairs(field.values) do
      if each == value then return i - 1 end
    end
  elseif field.kind == "boolean" then
    return value and 1 or 0
  elseif type(value) == "number" then
    return math.floor(value * 10 ^ field.scale + 0.5) - field.offset
  end
end

local function written(field, value)
  if value == nil then return number(0) end
  if field.most then
    if field.kind == "bytes" then
      value = value:gsub("%x%x", function(digits) return string.char(tonumber(digits, 16)) end)
    end
    return #value <= field.most and number(#value + 1) .. value or nil
  end
  local n = code(field, value)
  if not n or n < -2147483647 or n > 2147483647 then return nil end
  return number((n < 0 and -2 * n - 1 or 2 * n) + 1)
end

-- One frame as a string, or nil and why not. readings: a list of tables, field name -> value, each with its uptime_ms.
-- frame: boot, sequence (of the first reading), mark_ms (uptime at sending); if wanted device (a name), earlier (true: of an
-- earlier boot), seal (a function: covered bytes -> four bytes).
local function encode(template, readings, frame)
  local function age(reading)
    return (frame.mark_ms - reading.uptime_ms) % 4294967296
  end
  local flags = (frame.device and NAMED or 0) + (frame.seal and SEALED or 0) + (frame.earlier and EARLIER or 0)
  local batch = #readings > 1 or age(readings[1]) > 0
  local out = {}
  if frame.device then out[1] = string.char(#frame.device) .. frame.device end
  out[#out + 1] = number(template.number) .. number(frame.boot) .. number(frame.sequence)
  local mark = frame.mark_ms % 4294967296
  for _ = 1, 4 do
    out[#out + 1] = string.char(mark % 256)
    mark = (mark - mark % 256) / 256
  end
  for _, reading in ipairs(readings) do
    if batch then out[#out + 1] = number(age(reading)) end
    for _, field in ipairs(template.fields) do
      local value = written(field, reading[field.name])
      if not value then return nil, field.name end
      out[#out + 1] = value
    end
  end
  local body = table.concat(out)
  if batch then
    local length = 1 + #body + (frame.seal and 4 or 2)
    if length + 2 > LARGEST_FRAME or #readings > 255 then return nil, "large" end
    body = string.char(0xC0 + flags + BATCH, length, #readings) .. body
  else
    body = string.char(0xC0 + flags) .. body
  end
  if frame.seal then return body .. frame.seal(body) end
  local crc = crc16(body)
  return body .. string.char((crc - crc % 256) / 256, crc % 256)
end
