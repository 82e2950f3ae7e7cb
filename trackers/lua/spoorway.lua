--[[ Spoorway: events of a game or program -> a queue that survives a kill -> a Snowplow-compatible gateway. Apache-2.0.

One file for Lua 5.1 to 5.5, LuaJIT, LÖVE. It writes no global, leaves math.random alone, raises no error into its host
(a refused call gives nil and a code), and does no network work but in update(). See README.md. ]]
local M = { VERSION = "1.0.0", storage = {}, transports = {} }
local MODULE = ...

local byte, find, format, gsub, lower, match, sub = string.byte, string.find, string.format, string.gsub, string.lower, string.match, string.sub
local concat, floor, huge, max, min, yield = table.concat, math.floor, math.huge, math.max, math.min, coroutine.yield
local append = table.insert
local PATH, IGLU = "/com.snowplowanalytics.snowplow/tp2", "iglu:com.snowplowanalytics.snowplow/"
local SEGMENTS = 64 -- files of the queue, found again by trying their names

-- JSON
local ESCAPED = setmetatable({ ['"'] = '\\"', ["\\"] = "\\\\", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t" },
	{ __index = function(_, c) return format("\\u%04x", byte(c)) end })
local known, seen = {}, 0

local function plain(s) -- no quotes, backslashes, controls, bytes above 127; names and keys come again and again
	local is = known[s]
	if is == nil then
		is = not find(s, "[^ !#-[%]^-~]")
		if seen > 255 then known, seen = {}, 0 end
		if #s < 99 then known[s], seen = is, seen + 1 end
	end
	return is
end

-- A run of bytes above 127 -> the same, what is not UTF-8 replaced: one bad name must not cost its batch.
local function clean(run)
	local out, i = {}, 1
	while i <= #run do
		local a, b, c, d = byte(run, i, i + 3)
		b, c, d = b or 192, c or 192, d or 192
		local n = b > 191 and 0 or a > 193 and a < 224 and 2
			or c < 192 and a > 223 and a < 240 and (a > 224 or b > 159) and (a ~= 237 or b < 160) and 3
			or c < 192 and d < 192 and a > 239 and a < 245 and (a > 240 or b > 143) and (a < 244 or b < 144) and 4 or 0
		append(out, n > 0 and sub(run, i, i + n - 1) or "\239\191\189")
		i = i + max(n, 1)
	end
	return concat(out)
end

local function quote(s)
	if not plain(s) then s = gsub(gsub(s, "[\128-\255]+", clean), "[^ !#-[%]^-~\128-\255]", ESCAPED) end
	return '"' .. s .. '"'
end

-- No `for` in pairs() where it is hot: LuaJIT 2.1 of 2022 may end one early once it is compiled.
local function copy(from, into) -- gives how many as well
	local n, key, value = 0, next(from)
	while key ~= nil do
		n, into[key] = n + 1, value
		key, value = next(from, key)
	end
	return into, n
end

local function digits(n) return format("%.0f", n) end

local function number(n)
	if n ~= n or n == huge or n == -huge then error("invalid", 0) end
	if n % 1 == 0 and n > -1e15 and n < 1e15 then return digits(n) end
	if math.type and math.type(n) == "integer" then return format("%d", n) end
	local s = format("%.14g", n)
	if tonumber(s) ~= n then s = format("%.17g", n) end
	return (gsub(s, ",", ".")) -- a locale may have its own decimal point
end

local ARRAY, RAW = {}, {}
M.null = setmetatable({}, { __tostring = function() return "null" end })
function M.array(list) return setmetatable(list or {}, ARRAY) end -- {} alone is an object
function M.raw(json) return setmetatable({ json }, RAW) end -- ready-made JSON, trusted to be valid

-- mark: what stands for a quote: \" where the JSON is to be within a string, so that it is not gone through twice.
local function within(s, mark)
	if mark == '"' then return quote(s) end
	return plain(s) and mark .. s .. mark or gsub(quote(s), '["\\]', ESCAPED)
end

local function encode(value, out, depth, mark)
	local kind = type(value)
	if kind == "string" then
		out[#out + 1] = within(value, mark)
	elseif kind == "number" then
		out[#out + 1] = number(value)
	elseif kind == "boolean" or value == M.null then
		out[#out + 1] = tostring(value)
	elseif kind ~= "table" or depth > 100 then -- a function, or a table within itself
		error("invalid", 0)
	elseif getmetatable(value) == RAW then
		out[#out + 1] = mark == '"' and value[1] or gsub(value[1], '["\\]', ESCAPED)
	else
		local list, sign = value[1] ~= nil or getmetatable(value) == ARRAY, "{"
		if list then
			local _, n = copy(value, {})
			if n ~= #value then error("invalid", 0) end -- keys beside the list would be lost in silence
			sign = "["
			for i = 1, n do
				out[#out + 1] = sign
				sign = ","
				encode(value[i], out, depth + 1, mark)
			end
		else
			local key, item = next(value)
			while key ~= nil do
				out[#out + 1] = sign .. within(type(key) == "number" and number(key) or key, mark) .. ":"
				sign = ","
				encode(item, out, depth + 1, mark)
				key, item = next(value, key)
			end
		end
		out[#out + 1] = (sign == "," and "" or sign) .. (list and "]" or "}")
	end
end

-- A self-describing value as JSON text.
local function described(schema, data, mark)
	if type(schema) ~= "string" or type(data) ~= "table" then error("invalid", 0) end
	local out = { "{", within("schema", mark), ":", within(schema, mark), ",", within("data", mark), ":" }
	encode(data, out, 0, mark)
	out[#out + 1] = "}"
	return concat(out)
end
M.quote = quote

local LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
local function base64(s)
	return (gsub(s, "..?.?", function(group)
		local a, b, c = byte(group, 1, 3)
		local n, out = a * 65536 + (b or 0) * 256 + (c or 0), ""
		for shift = 18, 18 - 6 * #group, -6 do
			local at = floor(n / 2 ^ shift) % 64 + 1
			out = out .. sub(LETTERS, at, at)
		end
		return out
	end))
end

-- Random numbers of our own (L'Ecuyer's MRG32k3a, exact in doubles): the game's math.random must not notice.
local function generator(seed)
	local s = { 1, 2, 3, 4, 5, 6 }
	local function draw() -- 0 to 4294967086
		local p, q = (1403580 * s[2] - 810728 * s[1]) % 4294967087, (527612 * s[6] - 1370589 * s[4]) % 4294944443
		s[1], s[2], s[3], s[4], s[5], s[6] = s[2], s[3], p, s[5], s[6], q
		return (p - q) % 4294967087
	end
	for i = 1, #seed do
		s[3], s[6] = (s[3] + byte(seed, i) * 15485863) % 4294967087, (s[6] + byte(seed, i) * 16769023) % 4294944443
		draw()
	end
	for _ = 1, 12 do draw() end
	return draw
end

local function entropy(more)
	local love, socket, file = rawget(_G, "love"), package.loaded.socket, io and io.open and io.open("/dev/urandom", "rb")
	local seed = { tostring(more), tostring({}), tostring(quote), os.time(), os.clock(), tostring(coroutine.create(quote)) }
	append(seed, love and love.timer and format("%.9f", love.timer.getTime()) or 0)
	append(seed, socket and format("%.9f", socket.gettime()) or 0)
	if file then -- not on Windows, where addresses and clocks must do
		append(seed, file:read(32) or 0)
		file:close()
	end
	return concat(seed, "|")
end

-- Storages: read(name) -> text or nil, write and append(name, text) -> true once kept, remove(name); perhaps sync(), once a frame, and release().
function M.storage.memory()
	local files = {}
	return {
		read = function(name) return files[name] and concat(files[name]) end,
		write = function(name, text) files[name] = { text } return true end,
		append = function(name, text)
			files[name] = files[name] or {}
			append(files[name], text)
			return true
		end,
		remove = function(name) files[name] = nil end,
	}
end

local function with_handle(storage, open) -- appending through one open file: an event costs one write
	local handle, held
	function storage.release()
		if handle then handle:close() end
		handle, held = nil, nil
	end
	function storage.append(name, text)
		if held ~= name then
			storage.release()
			handle, held = open(name), name
		end
		if handle and handle:write(text) and handle:flush() then return true end
		storage.release()
	end
	local remove = storage.remove
	function storage.remove(name)
		if held == name then storage.release() end
		remove(name)
	end
	return storage
end

function M.storage.io(folder) -- the folder exists; it is this process's own
	folder = folder .. "/"
	return with_handle({
		read = function(name)
			local file = io.open(folder .. name, "rb")
			local text = file and file:read("*a")
			if file then file:close() end
			return text
		end,
		write = function(name, text)
			local file = io.open(folder .. name, "wb")
			return file and file:write(text) and file:close()
		end,
		remove = function(name) os.remove(folder .. name) end,
	}, function(name) return (io.open(folder .. name, "ab")) end)
end

function M.storage.love() -- the game's save directory
	local fs = love.filesystem
	return with_handle({
		read = function(name) return fs.getInfo(name) and (fs.read(name)) end,
		write = function(name, text) return (fs.write(name, text)) end,
		remove = fs.remove,
	}, function(name) return ((fs.openFile or fs.newFile)(name, "a")) end)
end

-- The queue is segments of records, LF sum " " text; the LF comes first, so that a record is safe behind a torn one.
-- Text is {…} an event, #n "the first n events are acknowledged", @n the segment's number.
local function checksum(s, breathe)
	local h, i = #s, 1
	while i + 5 <= #s do
		local a, b, c, d, e, f = byte(s, i, i + 5)
		h = (h * 1048583 + ((((a * 256 + b) * 256 + c) * 256 + d) * 256 + e) * 256 + f) % 2147483647 -- below 2^53
		i = i + 6
		if breathe and i % 1536 == 1 then breathe() end
	end
	for j = i, #s do h = (h * 257 + byte(s, j)) % 2147483647 end
	return h
end

local function record(text) return format("\n%08x ", checksum(text)) .. text end

-- The text of the record behind the LF at `at`, nil if it is damaged; and where the next begins.
local function at_record(all, at, breathe)
	local after = find(all, "\n", at + 1, true)
	local text = sub(all, at + 10, (after or 0) - 1)
	return tonumber(sub(all, at + 1, at + 8), 16) == checksum(text, breathe) and text or nil, after
end

local function open_queue(storage, prefix, most)
	local queue = { files = storage, prefix = prefix, most = most, bytes = 0, count = 0, list = {}, used = {}, last = 0 }
	queue.segment = storage.segment_bytes or max(4096, floor(most / SEGMENTS))
	for slot = 1, SEGMENTS do
		local all = storage.read(prefix .. slot)
		local seg, at = { slot = slot, order = 0, done = 0, count = 0, bytes = all and #all }, all and find(all, "\n", 1, true)
		while at do
			local kind = byte(all, at + 10)
			if kind == 123 then
				seg.count = seg.count + 1
			elseif kind == 35 or kind == 64 then
				local n = tonumber(sub(at_record(all, at) or "", 2))
				if n then seg[kind == 35 and "done" or "order"] = n end
			end
			at = find(all, "\n", at + 1, true)
		end
		if seg.count > seg.done then
			append(queue.list, seg)
			queue.used[slot], queue.last = true, max(queue.last, seg.order)
			queue.bytes, queue.count = queue.bytes + seg.bytes, queue.count + seg.count - seg.done
		elseif all then
			storage.remove(prefix .. slot)
		end
	end
	table.sort(queue.list, function(a, b) return a.order < b.order end)
	queue.open = queue.list[#queue.list]
	return queue
end

local function put(queue, text) -- true, or nil and "full" or "storage"
	local line, seg, slot = record(text), queue.open, 1
	if queue.bytes + #line > queue.most then return nil, "full" end
	if not seg or seg.bytes + #line > queue.segment then
		while queue.used[slot] do slot = slot + 1 end
		if slot > SEGMENTS then return nil, "full" end
		seg = { slot = slot, order = queue.last + 1, done = 0, count = 0, bytes = 0 }
		line = record("@" .. digits(seg.order)) .. line
	end
	if not queue.files.append(queue.prefix .. seg.slot, line) then return nil, "storage" end
	if seg.count == 0 then
		queue.open, queue.used[slot], queue.last = seg, true, seg.order
		append(queue.list, seg)
	end
	seg.count, seg.bytes = seg.count + 1, seg.bytes + #line
	queue.count, queue.bytes = queue.count + 1, queue.bytes + #line
	return true
end

-- The next events of the oldest segment, which is written no more: a list, with ends[i] = where event i+1 begins.
local function next_batch(queue, bytes, most, breathe)
	local seg = queue.list[1]
	if seg == queue.open then queue.open = nil end
	if not seg.text then
		seg.text = queue.files.read(queue.prefix .. seg.slot)
		if not seg.text then -- nothing is given up for a file that cannot be read now; the others go first
			append(queue.list, table.remove(queue.list, 1))
			error("storage", 0)
		end
		seg.at, seg.passed = find(seg.text, "\n", 1, true), 0
	end
	local batch, at, size = { ends = {}, passed = {} }, seg.at, 0
	local passed = seg.passed
	while at and #batch < most and size < bytes do
		local text, after
		if byte(seg.text, at + 10) == 123 and passed >= seg.done then
			text, after = at_record(seg.text, at, breathe)
		else
			after = find(seg.text, "\n", at + 1, true)
		end
		if byte(seg.text, at + 10) == 123 then passed = passed + 1 end
		if text then append(batch, text) size = size + #text end
		at = after
		batch.ends[#batch], batch.passed[#batch] = at or false, passed
		breathe()
	end
	return batch
end

local function forget(queue, batch, n) -- the first n events of a batch are safe elsewhere, or given up
	local seg, name = queue.list[1], queue.prefix .. queue.list[1].slot
	local passed = batch.passed[n]
	queue.count = queue.count - max(0, (passed or seg.count) - seg.done)
	seg.at, seg.passed, seg.done = batch.ends[n], passed, passed
	if seg.at then
		queue.files.append(name, record("#" .. digits(seg.done)))
	else
		queue.files.remove(name)
		table.remove(queue.list, 1)
		queue.used[seg.slot], queue.bytes = nil, queue.bytes - seg.bytes
	end
end

-- HTTP over LuaSocket. A transport is f(request, wait) -> status or nil, seconds of Retry-After; it runs in the pump's
-- coroutine. wait() gives the frame back and is false when the time is up. request: url, path, body, headers, …
local function answer(text, closed) -- an HTTP answer -> status, Retry-After, once all of it is there
	local head, code, body = match(text, "^(HTTP/1%.%d (%d%d%d).-\r\n)\r\n(.*)$")
	if not code then return nil end
	if code < "200" then return answer(body, closed) end
	head = lower(head)
	local length = tonumber(match(head, "\ncontent%-length:%s*(%d+)"))
	local whole = code == "204" or length and #body >= length
		or find(head, "\ntransfer%-encoding:[^\n]*chunked") and find("\r\n" .. body, "\r\n0\r\n\r\n", 1, true)
	if whole or closed and code > "399" then -- a 2xx without its body is no acknowledgement
		return tonumber(code), tonumber(match(head, "\nretry%-after:%s*(%d+)"))
	end
end

-- A connection; only the look-up of a name may block.
function M.connect(where, wait)
	local socket = require("socket")
	where.ip = where.ip or socket.dns.toip(where.host)
	local s = where.ip and socket.tcp()
	if not s then return nil end
	s:settimeout(0)
	local ok, err = s:connect(where.ip, where.port)
	while not ok do
		if err ~= "timeout" and err ~= "Operation already in progress" or not wait() then s:close() return nil end
		local _, ready = socket.select(nil, { s }, 0)
		ok = ready[1]
	end
	if where.tls then
		s = require("ssl").wrap(s, where.tls)
		s:settimeout(0)
		if s.sni then s:sni(where.host) end
		repeat
			ok, err = s:dohandshake()
			if not ok and (err ~= "wantread" and err ~= "wantwrite" or not wait()) then s:close() return nil end
		until ok
	end
	return s
end

-- Sends text, and gives to enough(received, closed) what comes, until that answers.
function M.exchange(s, text, wait, enough)
	local from, got = 1, ""
	while from <= #text do
		local last, err, partly = s:send(text, from, min(#text, from + 16383))
		from = (last or partly or from - 1) + 1
		if err == "closed" then break end -- there may be an answer all the same: 413
		if not wait() then return nil end
	end
	while #got < 65536 do
		local chunk, err, partly = s:receive(4096)
		got = got .. (chunk or partly or "")
		local a, b = enough(got, err == "closed")
		if a then return a, b end
		if err == "closed" or not wait() then return nil end
	end
end

function M.transports.luasocket(where)
	return function(request, wait)
		local s = M.connect(where, wait)
		if not s then return nil end
		local status, pause = M.exchange(s, "POST " .. request.path .. " HTTP/1.1\r\nHost: " .. where.authority .. "\r\nConnection: close\r\n"
			.. request.headers .. "Content-Length: " .. #request.body .. "\r\n\r\n" .. request.body, wait, answer)
		s:close()
		return status, pause
	end
end

function M.headers(lines) -- header lines -> a table
	local headers = {}
	gsub(lines, "([^:]+): ([^\r]*)\r\n", function(name, value) headers[name] = value end)
	return headers
end

-- A transport of what answers through a callback: start(request, done), done(status, headers).
function M.callback(start)
	return function(request, wait)
		local status, pause
		start(request, function(code, headers)
			status = code or 0
			for name, value in pairs(headers or {}) do
				if lower(tostring(name)) == "retry-after" then pause = tonumber(value) end
			end
		end)
		while not status do
			if not wait() and not status then return nil end
		end
		return status, pause
	end
end

-- LÖVE: what would hold up a frame is done in a thread, by this very module.
function M.thread(inbox, outbox)
	local socket = require("socket")
	while true do
		local job = inbox:demand()
		if job == "end" then return end
		local stop = socket.gettime() + job.timeout
		local status, pause
		if job.https then
			status, pause = M.callback(function(_, done)
				local _, code, _, headers = pcall(require("https").request, job.url, { method = "post", data = job.body, headers = M.headers(job.headers) })
				done(tonumber(code), headers)
			end)(job)
		else
			status, pause = M.transports.luasocket(job)(job, function() socket.sleep(0.003) return socket.gettime() < stop end)
		end
		outbox:push({ status or 0, pause or 0, job.id })
	end
end

function M.transports.love(where)
	local thread = love.thread.newThread("local path, name, inbox, outbox = ...\npackage.path = path\npcall(function() require(name).thread(inbox, outbox) end)\n")
	local inbox, outbox = love.thread.newChannel(), love.thread.newChannel()
	thread:start(package.path, MODULE, inbox, outbox)
	return function(request, wait)
		copy(where, request)
		inbox:push(request)
		local time
		repeat
			time = wait()
			local got = outbox:pop()
			if got and got[3] == request.id then return got[1], got[2] end
		until not time or not thread:isRunning()
	end, function() inbox:push("end") end
end

-- The tracker
local Tracker = {}
Tracker.__index = Tracker
local SUBJECT = { user_id = "uid", domain_user_id = "duid", session_id = "sid", session_index = "vid", network_user_id = "tnuid", ip = "ip",
	screen = "res", viewport = "vp", color_depth = "cd", timezone = "tz", language = "lang", useragent = "ua" }

local function tell(self, code, detail)
	if self.on_error then pcall(self.on_error, code, detail) end
end

local function drop(self, why, n)
	self.dropped[why] = (self.dropped[why] or 0) + n
	tell(self, why, n)
	return nil, why
end

local function text_of(value)
	if type(value) == "number" then return number(value) end
	return type(value) == "string" and value or error("invalid", 0)
end

local function repeat_subject(self) -- what every event repeats, as JSON
	local all = { aid = self.app_id, p = self.platform, tna = self.namespace, tv = "lua-" .. M.VERSION }
	copy(self.subject, all)
	self.repeated = ""
	for name, value in pairs(all) do
		if value ~= "" then self.repeated = self.repeated .. ',"' .. name .. '":' .. quote(text_of(value)) end
	end
end

-- What outlives a start: two files, of which the older is overwritten. {writes, starts, sessions, 1 = opted out, player's id}
local function keep(self)
	self.state[1] = self.state[1] + 1
	local ok, kept = pcall(self.storage.write, self.prefix .. (self.state[1] % 2 == 0 and "a" or "b"), record(concat(self.state, "|")))
	if ok and kept then return true end
	return nil, "storage"
end

local function recall(self)
	self.state = { 0, 0, 0, 0, "" }
	for _, letter in ipairs({ "a", "b" }) do
		local writes, starts, sessions, out, id = match(at_record(self.storage.read(self.prefix .. letter) or "", 1) or "", "^(%d+)|(%d+)|(%d+)|(%d)|(.*)$")
		if writes and tonumber(writes) > self.state[1] then self.state = { tonumber(writes), tonumber(starts), tonumber(sessions), tonumber(out), id } end
	end
end

-- A parameter of self-describing JSON: the wrapper `uri` around one event, or around a list of entities.
local function wrapped(self, name, uri, lists)
	local mark, out = self.base64 and '"' or '\\"', {}
	for i = 1, 2 do
		for _, item in ipairs(lists[i] or {}) do append(out, described(item.schema, item.data, mark)) end
	end
	if not out[1] then return "" end
	local open, shut = "[", "]"
	if name == "ue" then open, shut = "", "" end
	local text = "{" .. mark .. "schema" .. mark .. ":" .. mark .. IGLU .. uri .. mark .. "," .. mark .. "data" .. mark .. ":" .. open .. concat(out, ",") .. shut .. "}"
	if name == "ue" then name = self.base64 and "ue_px" or "ue_pr" else name = self.base64 and "cx" or "co" end
	return ',"' .. name .. '":"' .. (self.base64 and base64(text) or text) .. '"'
end

local function compose(self, kind, required, count, fields, more)
	local id = self.new_id()
	local out, n = { '{"e":"', kind, '","eid":"', id, '","dtm":"', digits(self.now_ms()), '"', self.repeated }, 8
	for i = 1, count, 2 do
		local value = fields[i + 1]
		value = value == nil and "" or text_of(value)
		if value ~= "" then
			out[n + 1], out[n + 2], out[n + 3], out[n + 4] = ',"', fields[i], '":', quote(value)
			n = n + 4
		elseif i <= required * 2 then
			error("missing", 0)
		end
	end
	if count == 0 then append(out, wrapped(self, "ue", "unstruct_event/jsonschema/1-0-0", { fields })) end
	local entities = more and more.entities
	if entities or self.entities[1] then append(out, wrapped(self, "co", "contexts/jsonschema/1-0-1", { self.entities, entities })) end
	append(out, more and more.true_ms and ',"ttm":"' .. number(more.true_ms) .. '"}' or "}")
	return concat(out), id
end

-- The event's id, or nil and: missing, invalid, large, full, storage, opted_out, closed.
local function track(self, ...)
	if self.closed then return nil, "closed" end
	if self.state[4] == 1 then return nil, "opted_out" end
	local ok, text, id = pcall(compose, self, ...)
	if not ok then return drop(self, text == "missing" and text or "invalid", 1) end
	if #text > self.max_event_bytes then return drop(self, "large", 1) end
	local ran, kept, why = pcall(put, self.queue, text)
	if ran and kept then return id end
	return drop(self, ran and why or "storage", 1)
end

function Tracker:track_page_view(url, title, referrer, more)
	return track(self, "pv", 1, 6, { "url", url, "page", title, "refr", referrer }, more)
end

function Tracker:track_page_ping(url, title, referrer, min_x, max_x, min_y, max_y, more)
	return track(self, "pp", 1, 14, { "url", url, "page", title, "refr", referrer, "pp_mix", min_x, "pp_max", max_x, "pp_miy", min_y, "pp_may", max_y }, more)
end

function Tracker:track_structured(category, action, label, property, value, more)
	return track(self, "se", 2, 10, { "se_ca", category, "se_ac", action, "se_la", label, "se_pr", property, "se_va", value }, more)
end

function Tracker:track_self_describing(schema, data, more)
	if not schema or schema == "" then return drop(self, "missing", 1) end
	return track(self, "ue", 1, 0, { { schema = schema, data = data or {} } }, more)
end

local function given(text) if text ~= "" then return text end end

function Tracker:track_screen_view(name, id, kind, previous_name, previous_id, previous_kind, transition, more)
	return self:track_self_describing(given(name) and "iglu:com.snowplowanalytics.mobile/screen_view/jsonschema/1-0-0", {
		name = name, id = given(id) or self.new_id(), type = given(kind), previousName = given(previous_name), previousId = given(previous_id),
		previousType = given(previous_kind), transitionType = given(transition) }, more)
end

function Tracker:track_timing(category, variable, timing_ms, label, more)
	return self:track_self_describing(given(category) and given(variable) and timing_ms and IGLU .. "timing/jsonschema/1-0-0",
		{ category = category, variable = variable, timing = timing_ms, label = given(label) }, more)
end

-- Games: schemas io.spoorway.game. After the named arguments comes a table of what else the schema knows.
for name, names in pairs({ session_start = {}, session_end = {}, level_start = { "level" }, level_end = { "level", "outcome" },
	economy = { "flow", "currency", "amount" }, progression = { "name", "step" } }) do
	Tracker["track_" .. name] = function(self, ...)
		local all, data = { ... }, {}
		local began = self.began
		if name == "session_start" then
			self.began = self.elapsed
			if not self.anonymous and self.state[4] == 0 then -- its id and number go with every event until the next one
				self.state[3] = self.state[3] + 1
				keep(self)
				self:set("session_id", self.new_id())
				self:set("session_index", self.state[3])
			end
		elseif name == "session_end" and began then
			data.duration_ms = floor((self.elapsed - began) * 1000)
		end
		if type(all[#names + 1]) == "table" then copy(all[#names + 1], data) end
		for i, key in ipairs(names) do data[key] = i < 3 and type(all[i]) == "number" and number(all[i]) or all[i] end -- level 3 is "3"
		return self:track_self_describing((not names[1] or given(all[1])) and "iglu:io.spoorway.game/" .. name .. "/jsonschema/1-0-0", data, all[#names + 2])
	end
end

-- Who and where, with every event; nil takes it back. Names: see SUBJECT.
function Tracker:set(name, value)
	local parameter = SUBJECT[name]
	if not parameter or value ~= nil and not pcall(text_of, value) then return nil, "invalid" end
	if self.anonymous and find(" uid duid sid vid tnuid ip ", " " .. parameter .. " ", 1, true) then return nil, "anonymous" end
	self.subject[parameter] = value
	repeat_subject(self)
	return true
end

function Tracker:set_user_id(id) return self:set("user_id", id) end

function Tracker:set_global_entities(list)
	if not pcall(wrapped, self, "co", "", { list }) then return nil, "invalid" end
	self.entities = list or {}
	return true
end

-- No events from here on, in later starts too; what waits is erased, and so is the player's id.
function Tracker:opt_out()
	local queue = self.queue
	for slot in pairs(queue.used) do pcall(self.storage.remove, queue.prefix .. slot) end
	queue.list, queue.used, queue.open, queue.bytes, queue.count = {}, {}, nil, 0, 0
	self.state[4], self.state[5], self.subject.duid = 1, "", nil
	repeat_subject(self)
	return keep(self)
end

function Tracker:opt_in()
	self.state[4] = 0
	return keep(self)
end

-- The pump takes batches to the gateway, a little in every frame.
local function request_for(self, batch, breathe)
	local sent, out = format(',"stm":"%.0f"}', self.now_ms()), {}
	for i = 1, #batch do out[i] = sub(batch[i], 1, -2) .. sent end
	breathe()
	local request = { url = self.where.url, path = self.where.path, timeout = self.timeout, id = self.new_id(), at = self.now_ms(),
		headers = "Content-Type: application/json\r\n" .. (self.anonymous and "SP-Anonymous: *\r\n" or ""),
		body = '{"schema":"' .. IGLU .. 'payload_data/jsonschema/1-0-4","data":[' .. concat(out, ",") .. "]}" }
	if self.sign then
		self.sequence = self.sequence + 1
		self.sign(request, self.state[2], self.sequence, breathe)
	end
	return request
end

local function due(self)
	local queue = self.queue
	if queue.count == 0 or not queue.list[1] then self.since, self.flushing = nil, false return false end
	self.since = self.since or self.elapsed
	return self.flushing or queue.bytes >= self.batch_bytes or self.elapsed - self.since >= self.interval
end

local function pump(self)
	local function breathe()
		if self.clock() >= self.deadline then yield() end
	end
	local function wait()
		yield()
		return self.elapsed < self.expires
	end
	local most, queue = huge, self.queue
	while true do
		while self.elapsed < self.pause_until or not due(self) do yield() end
		local seg, status, pause = queue.list[1], 200, nil
		local batch = next_batch(queue, self.batch_bytes, most, breathe)
		local n = #batch
		if n > 0 then
			local request = request_for(self, batch, breathe)
			self.expires, self.busy = self.elapsed + self.timeout, true
			if seg == queue.list[1] then status, pause = self.send(request, wait) end
			self.busy, status = false, status or 0
		end
		local never = find(" 400 401 403 404 410 422 ", " " .. status .. " ", 1, true) and not (self.sign and (status == 401 or status == 403))
		if seg ~= queue.list[1] then -- opted out meanwhile
			most = huge
		elseif status > 199 and status < 300 or never or status == 413 and n == 1 then
			local damaged = (batch.passed[n] or seg.count) - seg.done - n
			forget(queue, batch, n)
			if damaged > 0 then drop(self, "damaged", damaged) end
			if never or status == 413 then drop(self, never and "refused" or "large", n) else self.sent = self.sent + n end
			most, self.failures, self.since = huge, 0, nil
		elseif status == 413 then
			most = floor(n / 2)
		else
			self.failed, self.failures, self.flushing = self.failed + 1, self.failures + 1, false
			self.pause_until = self.elapsed + max(self.random() / 4294967087 * min(600, 2 ^ (self.failures - 1)), pause or 0)
			tell(self, "unsent", status)
		end
		yield()
	end
end

-- Once a frame. dt: seconds since the last time; without it the host's clock is asked.
function Tracker:update(dt)
	if self.closed then return end
	local now = self.clock()
	self.elapsed = self.elapsed + (dt or now - self.last)
	self.last, self.deadline = now, now + self.budget
	if self.storage.sync then pcall(self.storage.sync) end
	if self.elapsed < self.pause_until and not self.busy then return end
	local ok, err = coroutine.resume(self.pump, self)
	if not ok then -- the host's storage or transport raised
		self.pump, self.busy, self.flushing, self.pause_until = coroutine.create(pump), false, false, self.elapsed + 10
		tell(self, "internal", err)
	end
end

-- Sends what waits, back-off or not, for at most `seconds` (1). It holds up the frame; true when the queue is empty.
function Tracker:flush(seconds)
	local stop = self.clock() + (seconds or 1)
	self.flushing, self.pause_until = true, 0
	repeat
		self:update()
		if self.queue.count == 0 then return true end
		if self.sleep and self.busy then self.sleep(0.001) end
	until not self.flushing or self.closed or self.clock() >= stop
	return nil, "pending"
end

-- The end: a flush of at most `seconds`, then nothing more; what is left waits for the next start.
function Tracker:close(seconds)
	local done, why = true, nil
	if self.queue.count > 0 then done, why = self:flush(seconds) end
	self.closed = true
	for _, last in pairs({ self.storage.sync or 0, self.storage.release or 0, self.stop or 0 }) do pcall(last) end
	return done, why
end

function Tracker:status() -- failed: attempts; dropped: events by reason
	return { queued = self.queue.count, queued_bytes = self.queue.bytes, sent = self.sent, failed = self.failed, dropped = self.dropped,
		retry_s = max(0, self.pause_until - self.elapsed) }
end

function M.overlay(tracker, x, y) -- for love.draw()
	local status, lost = tracker:status(), 0
	for _, n in pairs(status.dropped) do lost = lost + n end
	love.graphics.print(format("spoorway: %d queued, %d sent, %d failed, %d dropped", status.queued, status.sent, status.failed, lost), x or 8, y or 8)
end

-- A tracker, or nil and what is wrong: url, platform, https, transport, storage, or a subject's name.
function M.new(options)
	local o, love, self = options or {}, rawget(_G, "love"), setmetatable({ subject = {}, entities = {}, dropped = {}, sent = 0, failed = 0,
		failures = 0, sequence = 0, elapsed = 0, pause_until = 0, app_id = "", platform = "app", namespace = "sp", timeout = 15, interval = 5,
		batch_bytes = 32768, max_event_bytes = 65536, max_bytes = 8388608, budget_ms = 0.2 }, Tracker)
	for name, value in pairs(o) do if name ~= "subject" then self[name] = value end end
	if not find(" web mob pc srv app tv cnsl iot headset ", " " .. tostring(self.platform) .. " ", 1, true) then return nil, "platform" end
	local ok, socket = pcall(require, "socket")
	local timer = love and love.timer or ok and { getTime = socket.gettime, sleep = socket.sleep } or { getTime = os.clock }
	self.clock, self.sleep = o.clock or timer.getTime, timer.sleep
	self.now_ms = o.now_ms or function() return floor((ok and socket.gettime() or os.time()) * 1000) end
	self.last, self.budget, self.prefix = self.clock(), self.budget_ms / 1000, "spoorway-" .. gsub(self.namespace, "%W", "_") .. "-"

	local scheme, host, port, base = match(gsub(o.url or "", "/+$", ""), "^(%a+)://([^/:]+):?(%d*)(.*)$")
	local secure = scheme == "https" or scheme == "mqtts"
	local transport = o.transport or love and love.thread and type(MODULE) == "string" and "love" or "luasocket" -- a thread has to require it by name
	local plugin = type(transport) == "table" and transport or {}
	local make = M.transports[transport] or plugin.transport
	if type(transport) == "function" then
		self.send = M.callback(transport)
	elseif not make then
		return nil, "transport"
	elseif not host and not plugin.anywhere then
		return nil, "url"
	end
	self.where = { path = (base or "") .. PATH, host = host, tls = secure and o.tls or nil, https = secure, authority = host and match(o.url, "//([^/]+)"),
		port = tonumber(port) or (scheme == "mqtts" and 8883 or scheme == "mqtt" and 1883 or secure and 443 or 80) }
	self.where.url = host and scheme .. "://" .. self.where.authority .. self.where.path
	if secure and make and not plugin.https and not (transport == "love" and pcall(require, "https") or o.tls and pcall(require, "ssl")) then
		return nil, "https"
	end
	if not self.send then self.send, self.stop = make(self.where, o, M) end

	self.storage = o.storage or plugin.storage and plugin.storage(o, M) or love and love.filesystem and M.storage.love()
		or o.folder and M.storage.io(o.folder) or M.storage.memory()
	local opened, queue = pcall(open_queue, self.storage, self.prefix, self.max_bytes)
	if not opened or not pcall(recall, self) then return nil, "storage" end
	self.queue, self.random = queue, generator(entropy(o.entropy))
	self.new_id = o.new_id or function()
		local a, b, c, d = self.random(), self.random(), self.random(), self.random()
		return format("%08x-%04x-4%03x-%04x-%04x%08x", a, floor(b / 65536), b % 4096, 32768 + c % 16384, floor(c / 65536), d)
	end
	self.state[2] = self.state[2] + 1
	if not self.anonymous and self.state[4] == 0 then
		if self.state[5] == "" then self.state[5] = self.new_id() end
		self.subject.duid = self.state[5]
	end
	if not keep(self) then return nil, "storage" end
	repeat_subject(self)
	for name, value in pairs(o.subject or {}) do
		if not self:set(name, value) then return nil, name end
	end
	self.pump = coroutine.create(pump)
	return self
end

return M
