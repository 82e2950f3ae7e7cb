--[[ Spoorway: events of a game -> a queue that survives a kill -> a Snowplow-compatible gateway. Apache-2.0.
Writes no global, leaves math.random alone, raises no error into its host, no network but in update(). ]]
local VERSION, MODULE = "1.0.0", ...
local M = { VERSION = VERSION, storage = {}, transports = {} }
local byte, find, format, gmatch, gsub, match, sub = string.byte, string.find, string.format, string.gmatch, string.gsub, string.match, string.sub
local push, join, remove = table.insert, table.concat, table.remove
local floor, max, yield = math.floor, math.max, coroutine.yield
local love, step = rawget(_G, "love"), next
if rawget(_G, "jit") then -- of 2022: compiled, next garbles an event in thousands
	function step(t, key) return next(t, key) end
	jit.off(step)
end
local IGLU = "iglu:com.snowplowanalytics.snowplow/"

local function copy(from, into)
	for key, value in step, from do into[key] = value end
	return into
end

-- Mends what is no UTF-8: one bad name must not cost its batch.
local function mend(c)
	local a, b = byte(c, 1, 2)
	if a < 128 then return format("\\u%04x", a) .. gsub(sub(c, 2), ".", mend) end
	local n = a < 194 and 0 or a < 224 and 2 or a < 240 and 3 or a < 245 and 4 or 0
	if n > #c or a == 224 and b < 160 or a == 237 and b > 159 or a == 240 and b < 144 or a == 244 and b > 143 then n = 0 end
	return sub(c, 1, n) .. ("\239\191\189"):rep(#c - n)
end

local mark, known, seen = '"', {}, 0 -- a quote: \" where JSON is within a string
local function within(s) return mark == '"' and s or (gsub(s, '["\\]', "\\%0")) end

local function quote(s)
	local plain = known[s] -- names recur
	if plain == nil then
		plain = not find(s, '[%c"\\\128-\255]')
		if seen > 63 then known, seen = {}, 0 end
		if #s < 99 then known[s], seen = plain, seen + 1 end
	end
	return plain and mark .. s .. mark or within('"' .. gsub(s, '[%c"\\\128-\255][\128-\191]*', mend) .. '"')
end

local function text_of(n)
	if type(n) == "string" then return n end
	if n - n ~= 0 then error() end
	local s = format(n % 1 == 0 and n * n < 1e30 and "%.0f" or "%.14g", n)
	if tonumber(s) ~= n then s = format("%.17g", n) end
	if tonumber(s) ~= n then s = format("%d", n) end
	return (gsub(s, ",", "."))
end

local ARRAY, RAW = {}, {}
function M.array(list) return setmetatable(list or {}, ARRAY) end
function M.raw(json) return setmetatable({ json }, RAW) end
M.null = M.raw("null")

local function encode(value, depth)
	local kind, meta = type(value), getmetatable(value)
	if kind ~= "table" then return kind == "string" and quote(value) or kind == "boolean" and tostring(value) or text_of(value) end
	if meta == RAW then return within(value[1]) end
	if depth > 100 then error() end
	local list, out, n = value[1] ~= nil or meta == ARRAY, {}, 0
	for key, item in step, value do
		n, item = n + 1, encode(item, depth + 1)
		if list then out[key] = item else out[n] = quote(text_of(key)) .. ":" .. item end
	end
	local text = join(out, ",", 1, n) -- raises if a list has other keys
	return list and "[" .. text .. "]" or "{" .. text .. "}"
end

local function nest(schema, json) return "{" .. mark .. "schema" .. mark .. ":" .. quote(schema) .. "," .. mark .. "data" .. mark .. ":" .. json .. "}" end

local function object(schema, data)
	if type(schema) ~= "string" or type(data) ~= "table" then error() end
	return nest(schema, encode(data, 0))
end

local LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
local function base64(group)
	local a, b, c = byte(group, 1, 3)
	local n, out = a * 65536 + (b or 0) * 256 + (c or 0), ""
	for shift = 18, 18 - 6 * #group, -6 do
		local at = floor(n / 2 ^ shift) % 64 + 1
		out = out .. sub(LETTERS, at, at)
	end
	return out
end

-- MRG32k3a in doubles
local function generator(seed)
	local a, b, c, d, e, f = 1, 2, 3, 4, 5, 6
	local function draw(more)
		a, b, c = b, c, (1403580 * b - 810728 * a + more) % 4294967087
		d, e, f = e, f, (527612 * f - 1370589 * d + more) % 4294944443
		return (c - f) % 4294967087
	end
	for i = 1, #seed + 12 do draw((byte(seed, i) or 0) * 15485863) end
	return draw
end

function M.storage.memory()
	local files = {}
	local function write(name, text)
		files[name] = text
		return true
	end
	return { read = function(name) return files[name] end, write = write, remove = write,
		append = function(name, text) return write(name, (files[name] or "") .. text) end }
end

local function by_files(open, delete, folder, kind, whole)
	local handle, held
	local function release()
		if handle then handle:close() end
		handle, held = nil, nil
	end
	return {
		release = release,
		read = function(name)
			local file = open(folder .. name, "r" .. kind)
			local text = file and file:read(whole)
			if file then file:close() end
			return text
		end,
		write = function(name, text)
			local file = open(folder .. name, "w" .. kind)
			return file and file:write(text) and file:close()
		end,
		append = function(name, text)
			if held ~= name then
				release()
				handle, held = open(folder .. name, "a" .. kind), name
			end
			if handle and handle:write(text) and handle:flush() then return true end
			release()
		end,
		remove = function(name)
			if held == name then release() end
			delete(folder .. name)
		end,
	}
end

function M.storage.io(folder) return by_files(io and io.open, os.remove, folder .. "/", "b", "*a") end

-- The queue: segments of records, LF sum " " text: an event {…} or the segment's number @n. LF comes first: a torn record spoils no other.
local function sum(s, rest)
	local h, padded = #s, s .. "\0\0\0\0\0"
	for i = 1, #s, 6 do
		local a, b, c, d, e, f = byte(padded, i, i + 5)
		h = (h * 1048583 + ((((a * 256 + b) * 256 + c) * 256 + d) * 256 + e) * 256 + f) % 2147483647 -- below 2^53
		if rest and i % 1536 == 1 then rest() end
	end
	return h
end
local function record(text) return format("\n%08x ", sum(text)) .. text end

-- The text of a record, nil if damaged, and where the next begins.
local function at_record(all, at, rest)
	local after = find(all, "\n", at + 1, true)
	local text = sub(all, at + 10, (after or 0) - 1)
	return tonumber(sub(all, at + 1, at + 8), 16) == sum(text, rest) and text or nil, after
end

local function open_queue(files, prefix, o)
	local list, used, last, slot = {}, {}, 0, 1
	local queue, slots = { count = 0, bytes = 0, list = list }, max(256, floor(o.max_bytes / max(o.batch_bytes, 4096)))

	local function add(seg, n, bytes)
		if not used[seg.name] then
			push(list, seg)
			used[seg.name], last = true, max(last, seg.order)
		end
		seg.count, seg.bytes = (seg.count or 0) + n, (seg.bytes or 0) + bytes
		queue.count, queue.bytes = queue.count + n, queue.bytes + bytes
	end

	for i = 1, slots do
		local name, n, order = prefix .. i, 0, last + 1
		local all = files.read(name) or ""
		local at = find(all, "\n", 1, true)
		while at do
			local kind = byte(all, at + 10)
			if kind == 123 then n = n + 1 elseif kind == 64 then order = tonumber(sub(at_record(all, at) or "", 2)) or 0 end
			at = find(all, "\n", at + 1, true)
		end
		if n > 0 then add({ name = name, order = order }, n, #all) elseif all ~= "" then files.remove(name) end
	end
	table.sort(list, function(a, b) return a.order < b.order end)
	local open = list[#list]

	function queue.put(text)
		local line, seg = record(text), open
		if queue.bytes + #line > o.max_bytes then error("full", 0) end
		if not seg or seg.bytes + #line > o.batch_bytes then
			if #list == slots then error("full", 0) end
			while used[prefix .. slot] do slot = slot % slots + 1 end
			seg = { name = prefix .. slot, order = last + 1 }
			line = record(format("@%.0f", seg.order)) .. line
		end
		if not files.append(seg.name, line) then error() end
		add(seg, 1, #line)
		open = seg
	end

	-- Of the oldest segment, written no more.
	function queue.batch(many, rest)
		local seg, passed = list[1], 0
		if seg == open then open = nil end
		local all = files.read(seg.name)
		if not all then -- others first
			push(list, remove(list, 1))
			error("storage", 0)
		end
		local batch, at = {}, find(all, "\n", 1, true)
		while at and #batch < many do
			local text, after = at_record(all, at, rest)
			if byte(all, at + 10) == 123 then
				passed = passed + 1
				if text and passed > (seg.done or 0) then push(batch, text) end
			end
			at = after
			rest()
		end
		batch.passed = at and passed
		return batch
	end

	function queue.forget(batch) -- gives how many were damaged
		local seg = list[1]
		local gone = batch.passed and batch.passed - (seg.done or 0) or seg.count
		add(seg, -gone, 0)
		seg.done = batch.passed
		if not seg.done then
			files.remove(seg.name)
			remove(list, 1)
			used[seg.name], queue.bytes = nil, queue.bytes - seg.bytes
		end
		return gone - #batch
	end

	function queue.erase()
		while list[1] do pcall(files.remove, remove(list).name) end
		used, open, queue.bytes, queue.count = {}, nil, 0, 0
	end
	return queue
end

-- Transports: f(job, done, wait); done(status or nil, headers or Retry-After in s). wait() gives the frame back; false: too late.
-- [transports
local function answer(text, closed) -- status and Retry-After, once it is whole
	local head, code, body = match(text, "^(HTTP/1%.%d (%d%d%d).-\r\n)\r\n(.*)$")
	if not code then return nil end
	if code < "200" then return answer(body, closed) end
	head = head:lower()
	local length = match(head, "\ncontent%-length:%s*(%d+)")
	if code == "204" or length and #body >= tonumber(length) or not length and find("\r\n" .. body, "\r\n0\r\n\r\n", 1, true)
		or closed and code > "399" then -- no acknowledgement without its body
		return tonumber(code), tonumber(match(head, "\nretry%-after:%s*(%d+)"))
	end
end

-- Sends text, until enough(got, closed) answers. Only a look-up may block.
local function exchange(where, text, wait, enough)
	local socket = require("socket")
	where.ip = where.ip or socket.dns.toip(where.host)
	local s = where.ip and socket.tcp()
	if not s then return nil end
	s:settimeout(0)
	local from, got, ok, err = 1, "", s:connect(where.ip, tonumber(where.port) or where.tls and 443 or 80)
	while not ok do
		if err ~= "timeout" or not wait() then return s:close() and nil end
		local _, ready = socket.select(nil, { s }, 0)
		ok = ready[1]
	end
	if where.tls then s = require("spoorway_https").wrap(s, where, wait) end
	while s and from <= #text do
		local last, why, part = s:send(text, from, from + 16383)
		from = (last or part or from - 1) + 1
		if why == "closed" then break end -- perhaps answered: 413
		if not wait() then return s:close() and nil end
	end
	while s do
		local chunk, why, part = s:receive(4096)
		got = got .. (chunk or part or "")
		local a, b = enough(got, why == "closed")
		if a or why == "closed" or #got > 65535 or not wait() then
			s:close()
			return a, b
		end
	end
end
M.exchange = exchange

function M.transports.luasocket(where)
	return function(job, done, wait)
		local head = "POST " .. job.path .. " HTTP/1.1\r\nHost: " .. where.server .. "\r\nConnection: close\r\nContent-Length: " .. #job.body
		for name, value in step, job.headers do head = head .. "\r\n" .. name .. ": " .. value end
		done(exchange(where, head .. "\r\n\r\n" .. job.body, wait, answer))
	end
end

if love then
	function M.storage.love()
		local fs = love.filesystem
		return by_files(fs.openFile or fs.newFile, fs.remove, "", "", "string")
	end

	function M.thread(inbox, outbox) -- may wait
		local socket = require("socket")
		for job in inbox.demand, inbox do
			if job == "end" then return end
			local stop = socket.gettime() + job.timeout
			local send = job.https and not job.tls and require("spoorway_https").request or M.transports.luasocket(job)
			send(job, function(status, after) outbox:push({ job.id, status or 0, after }) end, function()
				socket.sleep(0.003)
				return socket.gettime() < stop
			end)
		end
	end

	function M.transports.love()
		local thread = love.thread.newThread("package.path = ... pcall(function(_, name, ...) require(name).thread(...) end, ...)\n")
		local inbox, outbox = love.thread.newChannel(), love.thread.newChannel()
		thread:start(package.path, MODULE, inbox, outbox)
		return function(job, done, wait)
			inbox:push(job)
			repeat
				local more, got = wait(), outbox:pop()
				if got and got[1] == job.id then return done(got[2], got[3]) end
			until not more or not thread:isRunning()
			done()
		end, function() inbox:push("end") end
	end
end
-- transports]

-- A verb; its event or its schema's vendor (none: games), how many arguments must be there; their names.
local VERBS = "\
page_view pv1 url page refr\
page_ping pp1 url page refr pp_mix pp_max pp_miy pp_may\
structured se2 se_ca se_ac se_la se_pr se_va\
screen_view com.snowplowanalytics.mobile1 name id type previousName previousId previousType transitionType\
timing com.snowplowanalytics.snowplow3 category variable timing label\
session_start 0\
session_end 0\
level_start 1 level\
level_end 2 level outcome\
economy 3 flow currency amount\
progression 1 name step\
"
local SUBJECT = "user_id=uid domain_user_id=duid session_id=sid session_index=vid network_user_id=tnuid ip=ip screen=res viewport=vp\
color_depth=cd timezone=tz language=lang useragent=ua"

-- A tracker, or nil and what is wrong.
function M.new(options)
	local o = copy(options or {}, { platform = "app", namespace = "sp", timeout = 15, interval = 5, batch_bytes = 32768, max_event_bytes = 65536,
		max_bytes = 8388608, budget_ms = 0.2 })
	local found, socket = pcall(require, "socket")
	local timer = love and love.timer or found and socket or os
	local clock = o.clock or timer.getTime or timer.gettime or os.clock
	local now_ms = o.now_ms or function() return floor((found and socket.gettime() or os.time()) * 1000) end

	local scheme, server, base = match(o.url or "", "^(%a+)://([^/]+)(.-)/*$")
	local secure = scheme and find(scheme, "s$")
	local way = o.transport or love and love.thread and MODULE and "love" or "luasocket"
	local kit = type(way) == "table" and way or { transport = M.transports[way] }
	if type(way) == "function" then kit = { anywhere = true, https = true, transport = function() return way end } end
	local wrong = not find(" web mob pc srv app tv cnsl iot headset ", " " .. tostring(o.platform) .. " ", 1, true) and "platform"
		or not kit.transport and "transport" or not scheme and not kit.anywhere and "url"
		or secure and not kit.https and not pcall(function() require("spoorway_https").check(way, o.tls) end) and "https"
	if wrong then return nil, wrong end
	local where = { path = (base or "") .. "/com.snowplowanalytics.snowplow/tp2", server = server, tls = secure and o.tls, https = secure }
	if scheme then
		where.url, where.host, where.port = scheme .. "://" .. server .. where.path, match(server, "^([^:]+):?(%d*)$")
	end
	local send, stop = kit.transport(where, o, M)

	local self, subject, entities, dropped, common = {}, {}, {}, {}, nil
	local sent, failed, fails, number, time, resume, last, till, expires = 0, 0, 0, 0, 0, 0, clock(), 0, 0
	local since, urgent, busy, closed, pump, began
	local disk = o.storage or kit.storage and kit.storage(o, M) or love and love.filesystem and M.storage.love()
		or o.folder and M.storage.io(o.folder) or M.storage.memory()
	local prefix = "spoorway-" .. gsub(o.namespace, "%W", "_") .. "-"
	local file = io and io.open and io.open("/dev/urandom", "rb")
	local random = generator(tostring(o.entropy) .. tostring({}) .. os.time() .. clock() % 1 .. (file and file:read(32) or ""))
	if file then file:close() end

	-- Of two files the older is overwritten: writes, starts, sessions, 1 = opted out, player's id.
	local state = { 0, 0, 0, 0, "" }
	local opened, queue = pcall(function()
		for letter in gmatch("ab", ".") do
			local saved = { match(at_record(disk.read(prefix .. letter) or "", 1) or "", "^(%d+)|(%d+)|(%d+)|(%d)|(.*)$") }
			for i = 1, 4 do saved[i] = tonumber(saved[i]) end
			if (saved[1] or 0) > state[1] then state = saved end
		end
		return open_queue(disk, prefix, o)
	end)
	if not opened then return nil, "storage" end

	local function tell(code, detail) return o.on_error and pcall(o.on_error, code, detail) end

	local function drop(why, n)
		dropped[why] = (dropped[why] or 0) + n
		tell(why, n)
		return nil, why
	end

	local function keep()
		state[1] = state[1] + 1
		local ok, kept = pcall(disk.write, prefix .. (state[1] % 2 == 0 and "a" or "b"), record(join(state, "|")))
		if ok and kept then return true end
		return nil, "storage"
	end

	local function renew()
		common = ""
		for name, value in step, copy(subject, { aid = o.app_id or "", p = o.platform, tna = o.namespace, tv = "lua-" .. VERSION }) do
			if value ~= "" then common = common .. ',"' .. name .. '":' .. quote(text_of(value)) end
		end
	end

	self.new_id = o.new_id or function()
		local a, b, c, d = random(0), random(0), random(0), random(0)
		return format("%08x-%04x-4%03x-%04x-%04x%08x", a, floor(b / 65536), b % 4096, 32768 + c % 16384, floor(c / 65536), d)
	end

	local function parameter(plain, encoded, uri, json)
		json = nest(IGLU .. uri, json)
		return ',"' .. (o.base64 and encoded .. '":"' .. gsub(json, "..?.?", base64) or plain .. '":"' .. json) .. '"'
	end

	local function attach(own)
		local out = {}
		for _, list in ipairs({ entities, own }) do
			for _, item in ipairs(list) do push(out, object(item.schema, item.data)) end
		end
		return out[1] and parameter("co", "cx", "contexts/jsonschema/1-0-1", "[" .. join(out, ",") .. "]") or ""
	end

	local function compose(kind, least, names, given, data, more)
		if kind == "" then error("missing", 0) end
		local id, text = self.new_id(), ""
		for i = 1, #names do
			local name, value = names[i], given[i]
			if value == nil or value == "" then
				if i <= least then error("missing", 0) end
			elseif data then
				data[name] = i < 3 and type(value) == "number" and text_of(value) or value -- level 3 is "3"
			else
				text = text .. ',"' .. name .. '":' .. quote(text_of(value))
			end
		end
		mark = o.base64 and mark or '\\"'
		if data then text = parameter("ue_pr", "ue_px", "unstruct_event/jsonschema/1-0-0", object(kind, data)) end
		return '{"e":"' .. (data and "ue" or kind) .. '","eid":"' .. id .. format('","dtm":"%.0f"', now_ms()) .. common .. text
			.. ((more or entities[1]) and attach(more and more.entities) or "") .. (more and more.true_ms and ',"ttm":"' .. text_of(more.true_ms) .. '"}' or "}"), id
	end

	local function track(...)
		if closed or state[4] == 1 then return nil, closed and "closed" or "opted_out" end
		local ok, text, id = pcall(compose, ...)
		mark = '"'
		if not ok then return drop(text == "missing" and text or "invalid", 1) end
		if #text > o.max_event_bytes then return drop("large", 1) end
		local kept, why = pcall(queue.put, text)
		if kept then return id end
		return drop(why == "full" and why or "storage", 1)
	end

	function self.track_self_describing(_, schema, data, more)
		return track(schema or "", 0, {}, nil, data or {}, more)
	end

	setmetatable(self, { __index = function(_, method) -- verbs, made when first used
		local verb = match(tostring(method), "^track_([%a_]+)$")
		local kind, least, words = match(VERBS, "\n" .. (verb or " ") .. " (%D-)(%d)(.-)\n")
		if not kind then return end
		local names = {}
		for name in gmatch(words, "%S+") do push(names, name) end
		local schema = #kind ~= 2 and "iglu:" .. (kind == "" and "io.spoorway.game" or kind) .. "/" .. verb .. "/jsonschema/1-0-0"
		self[method] = function(_, a, b, c, d, e, f, g, h) -- LuaJIT compiles {...} for ever
			local given, data, n = { a, b, c, d, e, f, g, h }, schema and {}, #names
			if verb == "screen_view" then
				data.id = self.new_id()
			elseif verb == "session_start" then
				began = time
				if not o.anonymous and state[4] == 0 then
					state[3] = state[3] + 1
					keep()
					subject.sid, subject.vid = self.new_id(), state[3]
					renew()
				end
			elseif verb == "session_end" and began then
				data.duration_ms = floor((time - began) * 1000)
			end
			if kind == "" then
				n = n + 1
				if type(given[n]) == "table" then copy(given[n], data) end
			end
			return track(schema or kind, least + 0, names, given, data, given[n + 1])
		end
		return self[method]
	end })

	function self.set(_, name, value)
		local to
		for word, short in gmatch(SUBJECT, "(%S+)=(%S+)") do to = word == name and short or to end
		if not to or value ~= nil and not pcall(text_of, value) then return nil, "invalid" end
		if o.anonymous and not find("res vp cd tz lang ua", to) then return nil, "anonymous" end
		subject[to] = value
		renew()
		return true
	end
	function self.set_user_id(_, id) return self:set("user_id", id) end
	function self.set_global_entities(_, list)
		if not pcall(attach, list) then return nil, "invalid" end
		entities = list or {}
		return true
	end
	function self.opt_out()
		queue.erase()
		state[4], state[5], subject.duid = 1, "", nil
		renew()
		return keep()
	end
	function self.opt_in()
		state[4] = 0
		return keep()
	end

	local function rest()
		if clock() >= till then yield() end
	end
	local function wait()
		yield()
		return time < expires
	end

	local function attempt(batch)
		local seg, ending, out, status, pause = queue.list[1], format(',"stm":"%.0f"}', now_ms()), {}, nil, nil
		for i = 1, #batch do out[i] = sub(batch[i], 1, -2) .. ending end
		rest()
		local job = copy(where, { timeout = o.timeout, id = self.new_id(), at = now_ms(),
			headers = { ["Content-Type"] = "application/json", ["SP-Anonymous"] = o.anonymous and "*" or nil },
			body = nest(IGLU .. "payload_data/jsonschema/1-0-4", "[" .. join(out, ",") .. "]") })
		number = number + 1
		if o.sign then o.sign(job, state[2], number, rest) end
		if seg ~= queue.list[1] then return 0 end -- opted out
		expires, busy = time + o.timeout, true
		send(job, function(code, after)
			status, pause = code or 0, type(after) == "table" and (after["Retry-After"] or after["retry-after"]) or after
		end, wait)
		while not status and wait() do end
		busy = false
		return status or 0, tonumber(pause)
	end

	local function due()
		since = queue.count > 0 and (since or time) or nil
		urgent = urgent and since
		return since and (urgent or queue.bytes >= o.batch_bytes or time - since >= o.interval)
	end

	local function run()
		local most = 1e9
		while true do
			while time < resume or not due() do yield() end
			local seg, batch, status, pause = queue.list[1], queue.batch(most, rest), 200, nil
			local n = #batch
			if n > 0 then status, pause = attempt(batch) end
			local never = find(" 400 404 410 422 " .. (o.sign and "" or "401 403 "), " " .. status .. " ", 1, true)
			if seg ~= queue.list[1] then
				most = 1e9
			elseif floor(status / 100) == 2 or never or status == 413 and n == 1 then
				local damaged = queue.forget(batch)
				if damaged > 0 then drop("damaged", damaged) end
				if never or status == 413 then drop(never and "refused" or "large", n) else sent = sent + n end
				most, fails, since = 1e9, 0, nil
			elseif status == 413 then
				most = floor(n / 2)
			else
				failed, fails, urgent = failed + 1, fails + 1, false
				resume = time + max(random(0) / 4294967087 * math.min(600, 2 ^ (fails - 1)), pause or 0)
				tell("unsent", status)
			end
			yield()
		end
	end

	function self.update(_, dt)
		if closed then return end
		local now = clock()
		time = time + (dt or now - last)
		last, till = now, now + o.budget_ms / 1000
		if disk.sync then pcall(disk.sync) end
		if time < resume and not busy then return end
		pump = pump or coroutine.create(run)
		local ok, err = coroutine.resume(pump)
		if not ok then -- storage or transport raised
			pump, busy, urgent, resume = nil, false, false, time + 10
			tell("internal", err)
		end
	end
	function self.flush(_, seconds)
		local give_up = clock() + (seconds or 1)
		urgent, resume = true, 0
		repeat
			self:update()
			if queue.count == 0 then return true end
			if timer.sleep and busy then timer.sleep(0.001) end
		until not urgent or closed or clock() >= give_up
		return nil, "pending"
	end
	function self.close(_, seconds)
		local done, why = self:flush(seconds)
		closed = true
		pcall(disk.release or 0)
		pcall(stop or 0)
		return done, why
	end
	function self.status()
		return { queued = queue.count, queued_bytes = queue.bytes, sent = sent, failed = failed, dropped = dropped, retry_s = max(0, resume - time) }
	end

	state[2] = state[2] + 1
	if not o.anonymous and state[4] == 0 then
		if state[5] == "" then state[5] = self.new_id() end
		subject.duid = state[5]
	end
	if not keep() then return nil, "storage" end
	renew()
	for name, value in step, o.subject or {} do
		if not self:set(name, value) then return nil, name end
	end
	return self
end

return M
