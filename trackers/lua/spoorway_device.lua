--[[ A device's key -> a signer of requests: HMAC-SHA256 over name, start, number, target and body. Beside spoorway.lua.

	sign = require("spoorway_device").signer("arcade-7", KEY)     -- an option of spoorway.new; KEY: 64 hex digits

Uses `bit`, `bit32` or the language's own operators where they exist; plain 5.1 reckons (90 times slower, a little in every frame). ]]
local M = {}
local byte, char, floor, format, gsub, rep = string.byte, string.char, math.floor, string.format, string.gsub, string.rep

local function by_nibbles()
	local nibbles = {}
	for i = 0, 255 do
		local r, a, b = 0, floor(i / 16), i % 16
		for place = 0, 3 do r = r + (floor(a / 2 ^ place) + floor(b / 2 ^ place)) % 2 * 2 ^ place end
		nibbles[i] = r
	end
	return function(a, b)
		local r, place = 0, 1
		for _ = 1, 8 do
			local x, y = a % 16, b % 16
			r, place, a, b = r + nibbles[x * 16 + y] * place, place * 16, (a - x) / 16, (b - y) / 16
		end
		return r
	end
end

local found, lib = pcall(require, "bit")
lib = found and lib or rawget(_G, "bit32")
local native = not lib and (rawget(_G, "loadstring") or load)("return function(a, b) return a ~ b end")
local xor = lib and function(a, b) return lib.bxor(a, b) % 4294967296 end or native and native() or by_nibbles()

local ROUND, START, prime = {}, {}, 2 -- the roots of the first primes
while #ROUND < 64 do
	local is_prime = true
	for i = 2, prime - 1 do is_prime = is_prime and prime % i ~= 0 end
	if is_prime then
		ROUND[#ROUND + 1] = floor(prime ^ (1 / 3) % 1 * 4294967296)
		START[#START + 1] = #START < 8 and floor(prime ^ 0.5 % 1 * 4294967296) or nil
	end
	prime = prime + 1
end

local function both(a, b) return floor((a + b - xor(a, b)) / 2) end -- "and", out of exclusive "or"
local function turn(x, n)
	local low = x % 2 ^ n
	return floor((x - low) / 2 ^ n + low * 2 ^ (32 - n))
end

--- Of bytes; 64 hex digits. breathe is called for every 64 bytes.
function M.sha256(text, breathe)
	local bits, h, w = #text * 8, {}, {}
	for i = 1, 8 do h[i] = START[i] end
	text = text .. "\128" .. rep("\0", (55 - #text) % 64) .. "\0\0\0"
	for place = 4, 0, -1 do text = text .. char(floor(bits / 256 ^ place) % 256) end
	for from = 1, #text, 64 do
		if breathe then breathe() end
		for i = 1, 16 do
			local a, b, c, d = byte(text, from + i * 4 - 4, from + i * 4 - 1)
			w[i] = ((a * 256 + b) * 256 + c) * 256 + d
		end
		for i = 17, 64 do
			local x, y = w[i - 15], w[i - 2]
			local s0 = xor(xor(turn(x, 7), turn(x, 18)), floor(x / 8))
			local s1 = xor(xor(turn(y, 17), turn(y, 19)), floor(y / 1024))
			w[i] = (w[i - 16] + s0 + w[i - 7] + s1) % 4294967296
		end
		local a, b, c, d, e, f, g, k = h[1], h[2], h[3], h[4], h[5], h[6], h[7], h[8]
		for i = 1, 64 do
			local s1 = xor(xor(turn(e, 6), turn(e, 11)), turn(e, 25))
			local t1 = k + s1 + xor(g, both(e, xor(f, g))) + ROUND[i] + w[i]
			local s0 = xor(xor(turn(a, 2), turn(a, 13)), turn(a, 22))
			local t2 = s0 + xor(both(a, b), both(c, xor(a, b)))
			k, g, f, e, d, c, b, a = g, f, e, (d + t1) % 4294967296, c, b, a, (t1 + t2) % 4294967296
		end
		for i, add in ipairs({ a, b, c, d, e, f, g, k }) do h[i] = (h[i] + add) % 4294967296 end
	end
	for i = 1, 8 do h[i] = format("%08x", h[i]) end
	return table.concat(h)
end

local function from_hex(text)
	return (gsub(text, "%x%x", function(pair) return char(tonumber(pair, 16)) end))
end

--- Of bytes; 64 hex digits.
function M.hmac_sha256(key, text, breathe)
	if #key > 64 then key = from_hex(M.sha256(key)) end
	key = key .. rep("\0", 64 - #key)
	local function pad(with)
		return (gsub(key, ".", function(c) return char(xor(byte(c), with)) end))
	end
	return M.sha256(pad(92) .. from_hex(M.sha256(pad(54) .. text, breathe)))
end

--- name: as the gateway knows the device. key: 64 hex digits. Gives nil where either is not that.
function M.signer(name, key)
	if type(name) ~= "string" or type(key) ~= "string" or not string.find(key, "^%x+$") or #key ~= 64 then return nil end
	key = from_hex(key)
	return function(request, boot, sequence, breathe)
		local signed = format("%s\n%.0f\n%.0f\n", name, boot, sequence) .. request.path .. "\n" .. request.body
		local headers = request.headers
		headers["Spoorway-Device"], headers["Spoorway-Boot"], headers["Spoorway-Sequence"] = name, format("%.0f", boot), format("%.0f", sequence)
		headers["Spoorway-Signature"] = M.hmac_sha256(key, signed, breathe)
	end
end

return M
