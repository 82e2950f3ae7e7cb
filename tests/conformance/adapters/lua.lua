-- The Lua tracker's side of a vector run: cases on stdin, the query strings of what it would POST on stdout.
-- Everything up to the body of the request is the tracker's own; only its clock, its ids and the wire are replaced.
local root = arg[1]
package.path = root .. "/?.lua;" .. package.path
local spoorway = require("spoorway")

local function step(t, key) return next(t, key) end
if rawget(_G, "jit") then jit.off(step) end -- of 2022: walks through tables that it compiles lose keys, and that would be ours alone

local function utf8(code)
	if code < 128 then return string.char(code) end
	if code < 2048 then return string.char(192 + math.floor(code / 64), 128 + code % 64) end
	if code < 65536 then return string.char(224 + math.floor(code / 4096), 128 + math.floor(code / 64) % 64, 128 + code % 64) end
	return string.char(240 + math.floor(code / 262144), 128 + math.floor(code / 4096) % 64, 128 + math.floor(code / 64) % 64, 128 + code % 64)
end

local NAMED = { b = "\b", f = "\f", n = "\n", r = "\r", t = "\t" }

local function read_string(text, at) -- at: behind the opening quote
	local out = {}
	while true do
		local c = text:sub(at, at)
		if c == '"' then return table.concat(out), at + 1 end
		if c == "\\" then
			local kind = text:sub(at + 1, at + 1)
			if kind == "u" then
				local code = tonumber(text:sub(at + 2, at + 5), 16)
				at = at + 6
				if code >= 0xD800 and code < 0xDC00 then
					code = 0x10000 + (code - 0xD800) * 1024 + tonumber(text:sub(at + 2, at + 5), 16) - 0xDC00
					at = at + 6
				end
				out[#out + 1] = utf8(code)
			else
				out[#out + 1] = NAMED[kind] or kind
				at = at + 2
			end
		else
			out[#out + 1] = c
			at = at + 1
		end
	end
end

-- JSON as a program in Lua would hold it: numbers that a double cannot hold as raw JSON.
local function read(text, at)
	at = text:find("%S", at)
	local c = text:sub(at, at)
	if c == '"' then return read_string(text, at + 1) end
	if c == "{" or c == "[" then
		local object, list = c == "{", spoorway.array({})
		local all = object and {} or list
		at = text:find("%S", at + 1)
		while not text:find("^[%]}]", at) do
			local key, value
			if object then
				key, at = read_string(text, at + 1)
				at = text:find(":", at, true) + 1
			else
				key = #all + 1
			end
			value, at = read(text, at)
			all[key] = value
			at = text:find("[^%s,]", at)
		end
		return all, at + 1
	end
	for word, value in step, { ["true"] = true, ["false"] = false, null = spoorway.null } do
		if text:sub(at, at + #word - 1) == word then return value, at + #word end
	end
	local digits = text:match("^[-+%d.eE]+", at)
	local value = tonumber(digits)
	if not digits:find("[.eE]") and string.format("%.0f", value) ~= digits then value = spoorway.raw(digits) end
	return value, at + #digits
end

local function decode(text)
	return (text:gsub("+", " "):gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

local function query(event) -- flat: every value a string
	local out = {}
	for name, value in step, event do
		out[#out + 1] = name .. "=" .. value:gsub("[^%w%-._~]", function(c) return string.format("%%%02X", c:byte()) end)
	end
	return table.concat(out, "&")
end

local SUBJECT = { "user_id", "domain_user_id", "session_id", "session_index", "network_user_id", "screen", "viewport", "color_depth", "timezone",
	"language", "ip", "useragent" }

local function answer(given, call)
	local now, body = tonumber(given.now_ms), nil
	local tracker, why = spoorway.new({
		url = "http://127.0.0.1", app_id = given.app_id, platform = given.platform, namespace = given.namespace, base64 = given.base64 == "1",
		interval = 0, now_ms = function() return now end, new_id = function() return given.event_id end, storage = spoorway.storage.memory(),
		transport = function(request, done)
			body = request.body
			done(200)
		end,
	})
	if not tracker then return "!" .. why end
	tracker:set("domain_user_id", nil) -- its own; a case gives one
	for _, name in ipairs(SUBJECT) do
		if given[name] then tracker:set(name, given[name]) end
	end
	local more = { entities = call.entities and (read(call.entities, 1)), true_ms = tonumber(call.true_ms) }
	local id
	if call.verb == "page_view" then
		id, why = tracker:track_page_view(call.url, call.title, call.referrer, more)
	elseif call.verb == "page_ping" then
		id, why = tracker:track_page_ping(call.url, call.title, call.referrer, tonumber(call.min_x), tonumber(call.max_x), tonumber(call.min_y),
			tonumber(call.max_y), more)
	elseif call.verb == "screen_view" then
		id, why = tracker:track_screen_view(call.name, call.id, call.type, call.previous_name, call.previous_id, call.previous_type,
			call.transition_type, more)
	elseif call.verb == "structured" then
		id, why = tracker:track_structured(call.category, call.action, call.label, call.property, tonumber(call.value), more)
	elseif call.verb == "self_describing" then
		id, why = tracker:track_self_describing(call.schema, (read(call.data, 1)), more)
	end
	if not id then return "!" .. why end
	now = tonumber(given.sent_ms)
	tracker:flush(10)
	return query(read(body, 1).data[1])
end

for line in io.lines() do
	local given, call = {}, {}
	for name, value in line:gmatch("([^&=]+)=([^&]*)") do
		local group, key = decode(name):match("^(%a+)%.(.*)$")
		if group then (group == "given" and given or call)[key] = decode(value) end
	end
	io.write(answer(given, call), "\n")
end
