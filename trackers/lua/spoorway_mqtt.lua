--[[ Batches -> MQTT 3.1.1 over LuaSocket, QoS 1, a connection each; an acknowledgement is the gateway's PUBACK. Beside spoorway.lua.

	spoorway.new { url = "mqtt://192.0.2.7", transport = require("spoorway_mqtt"), device = NAME, password = SECRET }

mqtts:// needs spoorway_https.lua, LuaSec, and its parameters in `tls`. What a broker between acknowledges is the broker's to keep. ]]
local M = {}
local byte, char, floor, sub = string.byte, string.char, math.floor, string.sub

local function text(s) return char(floor(#s / 256), #s % 256) .. s end

local function packet(first, body)
	local length, n = "", #body
	repeat
		local low = n % 128
		n = floor(n / 128)
		length = length .. char(low + (n > 0 and 128 or 0))
	until n == 0
	return char(first) .. length .. body
end

function M.transport(where, options, spoorway)
	local device = options.device or "lua"
	where.port = tonumber(where.port) or where.tls and 8883 or 1883
	local login = packet(16, "\0\4MQTT\4\194\0\60" .. text(device) .. text(device) .. text(options.password or ""))
	local topic = text("spoorway/" .. device .. "/tp2") .. "\0\1"

	local function reply(got) -- CONNACK, then PUBACK; a batch may follow its login at once
		local code = sub(got, 1, 3) == " \2\0" and byte(got, 4)
		if code == 4 or code == 5 then -- kept: a secret may be corrected
			if options.on_error then pcall(options.on_error, "login", code) end
			return 0
		end
		return sub(got, 5, 8) == "@\2\0\1" and 200
	end

	return function(request, done, wait)
		done(spoorway.exchange(where, login .. packet(50, topic .. request.body), wait, reply))
	end
end

return M
