-- busted: the tracker with a clock, ids, a storage and a gateway that the test holds in its hands.
package.path = os.getenv("SPOORWAY_LUA") .. "/?.lua;" .. package.path
local spoorway = require("spoorway")

local SCHEMA = "iglu:com.acme/anything/jsonschema/1-0-0"

-- options over defaults; gives the tracker and a world: files, requests (with .done), errors, now
local function world(options)
	local w = { requests = {}, errors = {}, now = 1768471200000, time = 0 }
	w.storage = options and options.storage or spoorway.storage.memory()
	local all = { url = "http://127.0.0.1", app_id = "duck", storage = w.storage, interval = 0, now_ms = function() return w.now end,
		clock = function() return w.time end, on_error = function(code, detail) w.errors[#w.errors + 1] = code .. " " .. tostring(detail) end,
		transport = function(request, done) request.done = done; w.requests[#w.requests + 1] = request end }
	for name, value in pairs(options or {}) do all[name] = value end
	w.tracker = assert(spoorway.new(all))
	function w.step(seconds, times)
		for i = 1, times or 3 do w.tracker:update(i == 1 and seconds or 0) end
	end
	return w.tracker, w
end

local function events(request)
	local n = 0
	for _ in request.body:gmatch('"eid":') do n = n + 1 end
	return n
end

describe("track", function()
	it("gives an id, and no two alike", function()
		local tracker, seen = world(), {}
		for _ = 1, 5000 do
			local id = tracker.new_id()
			assert.truthy(id:match("^%x%x%x%x%x%x%x%x%-%x%x%x%x%-4%x%x%x%-[89ab]%x%x%x%-%x%x%x%x%x%x%x%x%x%x%x%x$"), id)
			assert.is_nil(seen[id])
			seen[id] = true
		end
		assert.are_not.equal(tracker.new_id(), world().new_id())
	end)

	it("refuses by name what cannot be sent, and raises nothing", function()
		local tracker, w = world()
		local circle = {}
		circle.again = circle
		for _, data in ipairs({ circle, { f = print }, { n = 0 / 0 }, { n = 1 / 0 }, { 1, 2, key = 3 }, { [true] = 1 }, "text", 7 }) do
			assert.are.same({ nil, "invalid" }, { tracker:track_self_describing(SCHEMA, data) })
		end
		assert.are.same({ nil, "missing" }, { tracker:track_structured("shop") })
		assert.are.same({ nil, "invalid" }, { tracker:track_page_view({}) })
		assert.are.same({ nil, "invalid" }, { tracker:track_page_view("x", nil, nil, { entities = { { schema = 1, data = {} } } }) })
		assert.are.equal(8 + 2, w.tracker:status().dropped.invalid)
		assert.are.equal(0, tracker:status().queued)
	end)

	it("knows no name but its own, neither of a verb nor of what is set", function()
		local tracker = world()
		for _, name in ipairs({ "track_", "track_page", "track_PAGE_VIEW", "track_.*", "track_page_view pv", "track_\npage_view", "page_view", 7, true }) do
			assert.is_nil(tracker[name], name)
		end
		for _, name in ipairs({ "ip=ip screen", "user", "ser_id", "user_id ", "user_id=uid", "%S+", "", 7, true }) do
			assert.are.same({ nil, "invalid" }, { tracker:set(name, "x") }, name)
		end
		assert.are.same({ nil, "invalid" }, { tracker:set(nil, "x") })
		assert.are.same({ nil, "invalid" }, { tracker:set("user_id", {}) })
		for _, name in ipairs({ "user_id", "useragent", "color_depth", "viewport" }) do assert.is_true(tracker:set(name, "x")) end
	end)

	it("keeps a byte that is no UTF-8 from spoiling its batch", function()
		local tracker, w = world()
		tracker:track_page_view("a\255b", "\195\164 \237\160\128 \240\159\166\134 \192\128 \226\130")
		w.step()
		local bad = "\239\191\189"
		assert.truthy(w.requests[1].body:find('"url":"a' .. bad .. 'b","page":"\195\164 ' .. bad:rep(3) .. " \240\159\166\134 " .. bad:rep(2) .. " " .. bad:rep(2) .. '"', 1, true))
	end)

	it("is bounded: what does not fit is counted", function()
		local tracker = world({ max_bytes = 8192, max_event_bytes = 1000 })
		assert.are.same({ nil, "large" }, { tracker:track_page_view(("x"):rep(1000)) })
		local taken = 0
		while tracker:track_page_view(("x"):rep(500)) do taken = taken + 1 end
		assert.is_true(taken > 8 and taken < 16)
		assert.are.equal(1, tracker:status().dropped.full)
		assert.are.equal(taken, tracker:status().queued)
	end)

	it("writes numbers as they are, and lists as lists", function()
		local tracker, w = world()
		for _, n in ipairs({ 0, -1, 0.1, 1e15, 9007199254740991, 1e300, -2.5e-8 }) do
			tracker:track_self_describing(SCHEMA, { n = n, none = spoorway.array(), nothing = spoorway.null, raw = spoorway.raw('{"a":"b\\""}') })
			w.step()
			local body = w.requests[#w.requests].body
			assert.are.equal(n, tonumber(body:match('\\"n\\":([-+.%de]+)')))
			assert.truthy(body:find('\\"none\\":[]', 1, true))
			assert.truthy(body:find('\\"nothing\\":null', 1, true))
			assert.truthy(body:find([[\"raw\":{\"a\":\"b\\\"\"}]], 1, true))
			w.requests[#w.requests].done(200)
			w.step()
		end
	end)

	it("says that the storage failed", function()
		local storage = spoorway.storage.memory()
		local tracker, w = world({ storage = storage })
		storage.append = function() error("disk on fire") end
		assert.are.same({ nil, "storage" }, { tracker:track_page_view("x") })
		storage.append = function() return nil end
		assert.are.same({ nil, "storage" }, { tracker:track_page_view("x") })
		assert.are.same({ "storage 1", "storage 1" }, w.errors)
	end)

	it("numbers and texts of the game verbs keep to their schemas", function()
		local tracker, w = world()
		tracker:track_session_start()
		tracker:update(1.5)
		tracker:track_level_start(3)
		tracker:track_session_end({ reason = "quit" })
		w.step()
		local body = w.requests[1].body .. (w.requests[2] and w.requests[2].body or "")
		w.requests[1].done(200)
		w.step()
		body = body .. (w.requests[2] and w.requests[2].body or "")
		assert.truthy(body:find([[\"level\":\"3\"]], 1, true))
		assert.truthy(body:find([[\"duration_ms\":1500]], 1, true))
		assert.truthy(body:find('"vid":"1"', 1, true))
	end)
end)

describe("sending", function()
	it("doubles its pauses with jitter, and keeps to Retry-After", function()
		local tracker, w = world()
		tracker:track_page_view("x")
		w.step()
		local longest = 0
		for round = 1, 14 do
			assert.are.equal(round, #w.requests)
			w.requests[round].done(500)
			w.step()
			local pause = tracker:status().retry_s
			assert.is_true(pause <= math.min(600, 2 ^ (round - 1)))
			longest = math.max(longest, pause)
			w.step(pause + 0.001)
		end
		assert.is_true(longest > 30)
		w.requests[15].done(503, { ["Retry-After"] = "1234" })
		w.step()
		assert.is_true(tracker:status().retry_s > 1233.9)
		w.step(1233, 1)
		assert.are.equal(15, #w.requests)
		w.step(2)
		w.requests[16].done(200)
		w.step()
		assert.are.equal(0, tracker:status().queued)
		assert.are.equal(1, tracker:status().sent)
		for _, request in ipairs(w.requests) do assert.are.equal(w.requests[1].body, request.body) end
	end)

	it("writes the moment of each attempt", function()
		local tracker, w = world()
		tracker:track_page_view("x")
		w.step()
		w.requests[1].done(nil)
		w.now = w.now + 5000
		w.step()
		w.step(2)
		assert.truthy(w.requests[1].body:find('"dtm":"1768471200000".*"stm":"1768471200000"'))
		assert.truthy(w.requests[2].body:find('"dtm":"1768471200000".*"stm":"1768471205000"'))
	end)

	it("halves what is too large, and gives up only what is so alone", function()
		local tracker, w = world()
		for i = 1, 8 do tracker:track_page_view(i == 5 and ("x"):rep(5000) or "page " .. i) end
		for _ = 1, 40 do
			w.step()
			local request = w.requests[#w.requests]
			if request.done then request.done(#request.body > 4000 and 413 or 200) end
			request.done = nil
			w.step()
		end
		assert.are.equal(7, tracker:status().sent)
		assert.are.equal(1, tracker:status().dropped.large)
		assert.are.equal(0, tracker:status().queued)
	end)

	it("never sends again what was refused for good, but for a login that may change", function()
		for _, status in ipairs({ 400, 401, 403, 404, 410, 422 }) do
			local tracker, w = world()
			tracker:track_page_view("x")
			w.step()
			w.requests[1].done(status)
			w.step(1000)
			assert.are.equal(1, #w.requests, status)
			assert.are.equal(1, tracker:status().dropped.refused)
		end
		local tracker, w = world({ sign = require("spoorway_device").signer("arcade", ("0b"):rep(32)) })
		tracker:track_page_view("x")
		w.step()
		w.requests[1].done(401)
		w.step()
		w.step(2)
		assert.are.equal(1, tracker:status().queued)
		assert.are.equal(2, #w.requests)
	end)

	it("goes on after a transport or a storage that raises", function()
		local fail = true
		local tracker, w
		tracker, w = world({ transport = function(_, done) if fail then error("no") end done(200) end })
		tracker:track_page_view("x")
		w.step()
		assert.truthy(w.errors[1]:find("^internal"))
		fail = false
		w.step(11)
		assert.are.equal(1, tracker:status().sent)
	end)

	it("gives the frame back once its budget is used", function()
		local looks = 0
		local tracker, w = world({ budget_ms = 0.2, clock = function() looks = looks + 1 return looks * 0.00005 end, batch_bytes = 1e6 })
		for i = 1, 300 do tracker:track_page_view("page " .. i) end
		local frames = 0
		while #w.requests == 0 do
			local before = looks
			tracker:update(0)
			assert.is_true(looks - before <= 6)
			frames = frames + 1
		end
		assert.is_true(frames > 50)
		assert.are.equal(300, events(w.requests[1]))
	end)

	it("gives up an attempt after its time", function()
		local tracker, w = world({ timeout = 15 })
		tracker:track_page_view("x")
		w.step()
		w.step(7, 1)
		assert.are.equal(0, tracker:status().failed)
		w.step(9)
		assert.are.equal(1, tracker:status().failed)
	end)
end)

describe("the queue", function()
	it("outlives a start that was killed: what was acknowledged stays gone, the rest stays", function()
		local tracker, w = world({ batch_bytes = 600 })
		for i = 1, 6 do tracker:track_page_view("page " .. i) end
		w.step()
		local first = events(w.requests[1])
		assert.is_true(first > 0 and first < 6)
		w.requests[1].done(200)
		w.step()
		local again, w2 = world({ storage = w.storage })
		assert.are.equal(6 - first, again:status().queued)
		local body = ""
		while again:status().queued > 0 do
			w2.step()
			local request = w2.requests[#w2.requests]
			body = body .. request.body
			request.done(200)
			w2.step()
		end
		for i = 1, 6 do assert.are.equal(i > first, body:find("page " .. i, 1, true) ~= nil) end
	end)

	it("loses a damaged record and no other", function()
		local files, storage = {}, spoorway.storage.memory()
		local append = storage.append
		storage.append = function(name, text) files[#files + 1] = name return append(name, text) end
		local tracker = world({ storage = storage })
		for i = 1, 5 do tracker:track_page_view("page " .. i) end
		local name = files[1]
		local text = storage.read(name)
		local at = text:find("page 3", 1, true)
		storage.write(name, text:sub(1, at - 1) .. "pagE" .. text:sub(at + 4) .. '\n00000000 {"e":"pv","url":"to')
		local again, w = world({ storage = storage })
		again:track_page_view("page 6")
		w.step()
		local body = w.requests[1].body
		for i = 1, 6 do assert.are.equal(i ~= 3, body:find("page " .. i, 1, true) ~= nil) end
		w.requests[1].done(200)
		w.step()
		assert.are.equal(2, again:status().dropped.damaged)
		assert.are.equal(0, again:status().queued)
		assert.are.equal(0, world({ storage = storage }):status().queued)
	end)

	it("survives a cut after any byte", function()
		local whole = spoorway.storage.memory()
		local tracker = world({ storage = whole })
		for i = 1, 3 do tracker:track_page_view("page " .. i) end
		local text = whole.read("spoorway-sp-1")
		local ends = {}
		for at in text:gmatch('}()') do ends[#ends + 1] = at - 1 end
		for cut = 0, #text do
			local storage = spoorway.storage.memory()
			storage.write("spoorway-sp-1", text:sub(1, cut))
			local again, w = world({ storage = storage })
			again:track_page_view("after")
			local complete = 1
			for _, at in ipairs(ends) do complete = complete + (cut >= at and 1 or 0) end
			w.step()
			assert.are.equal(complete, events(w.requests[1]))
			w.requests[1].done(200)
			w.step()
			assert.are.equal(0, again:status().queued)
		end
	end)

	it("gives up nothing that cannot be read at the moment", function()
		local storage = spoorway.storage.memory()
		local read, broken = storage.read, true
		local tracker, w = world({ storage = storage })
		storage.read = function(name) if not broken then return read(name) end end
		tracker:track_page_view("x")
		w.step()
		assert.are.same({ "internal storage" }, w.errors)
		assert.are.equal(1, tracker:status().queued)
		broken = false
		w.step(11)
		w.requests[1].done(200)
		w.step()
		assert.are.equal(1, tracker:status().sent)
	end)

	it("keeps its order over many segments and starts", function()
		local storage = spoorway.storage.memory()
		for start = 0, 9 do
			local tracker = world({ storage = storage, batch_bytes = 1000 })
			for i = 1, 30 do tracker:track_page_view(("page %03d"):format(start * 30 + i)) end
			tracker:close(0)
		end
		local tracker, w = world({ storage = storage, batch_bytes = 1000 })
		assert.are.equal(300, tracker:status().queued)
		local order = {}
		while tracker:status().queued > 0 do
			w.step()
			local request = w.requests[#w.requests]
			for page in request.body:gmatch("page (%d+)") do order[#order + 1] = tonumber(page) end
			request.done(200)
			w.step()
		end
		assert.are.equal(300, #order)
		for i = 1, 300 do assert.are.equal(i, order[i]) end
		assert.is_true(#w.requests > 60)
	end)

	it("is full when its files are, and goes on where one has gone", function()
		local storage = spoorway.storage.memory()
		local tracker, w = world({ storage = storage, batch_bytes = 1, max_bytes = 1e6 })
		for i = 1, 256 do assert.truthy(tracker:track_page_view("page " .. i)) end
		assert.are.same({ nil, "full" }, { tracker:track_page_view("page 257") })
		w.step()
		w.requests[1].done(200)
		w.step()
		assert.truthy(tracker:track_page_view("page 258"))
		tracker, w = world({ storage = storage, batch_bytes = 1, max_bytes = 1e6 })
		local order = {}
		while tracker:status().queued > 0 do
			w.step()
			local request = w.requests[#w.requests]
			order[#order + 1] = tonumber(request.body:match("page (%d+)"))
			request.done(200)
			w.step()
		end
		assert.are.equal(256, #order)
		for i = 1, 255 do assert.are.equal(i + 1, order[i]) end
		assert.are.equal(258, order[256])
	end)
end)

describe("the overlay", function()
	it("says how many are queued, sent, failed and dropped", function()
		local tracker, w = world()
		tracker:track_page_view("x")
		tracker:track_page_view()
		w.step()
		w.requests[1].done(500)
		w.step()
		local said
		_G.love = { graphics = { print = function(...) said = { ... } end } }
		require("spoorway_overlay")(tracker, 1, 2)
		_G.love = nil
		assert.are.same({ "spoorway: 1 queued, 0 sent, 1 failed, 1 dropped", 1, 2 }, said)
	end)
end)

describe("the player's wish", function()
	it("opt_out erases what waits, lasts over starts, and is taken back", function()
		local tracker, w = world()
		tracker:track_page_view("secret")
		w.step()
		assert.is_true(tracker:opt_out())
		w.requests[1].done(500)
		w.step(1000)
		assert.are.equal(1, #w.requests, status)
		assert.are.equal(0, tracker:status().queued)
		assert.are.same({ nil, "opted_out" }, { tracker:track_page_view("x") })
		local again = world({ storage = w.storage })
		assert.are.same({ nil, "opted_out" }, { again:track_page_view("x") })
		for slot = 1, 64 do assert.is_nil(w.storage.read("spoorway-sp-" .. slot)) end
		assert.is_true(again:opt_in())
		assert.truthy(again:track_page_view("x"))
	end)

	it("anonymous sends no ids, not even the address", function()
		local tracker, w = world({ anonymous = true })
		assert.are.same({ nil, "anonymous" }, { tracker:set_user_id("jon") })
		tracker:track_session_start()
		w.step()
		for _, name in ipairs({ "uid", "duid", "sid", "vid" }) do assert.is_nil(w.requests[1].body:find('"' .. name .. '"', 1, true)) end
		assert.are.equal("*", w.requests[1].headers["SP-Anonymous"])
	end)

	it("a player keeps an id over starts", function()
		local tracker, w = world()
		tracker:track_page_view("x")
		local again, w2 = world({ storage = w.storage })
		again:track_page_view("y")
		w2.step()
		local first, second = w2.requests[1].body:match('"duid":"(%x+%-[%x-]+)".*"duid":"(%x+%-[%x-]+)"')
		assert.are.equal(36, #first)
		assert.are.equal(first, second)
	end)
end)

describe("a device's key", function()
	local device = require("spoorway_device")
	it("hashes and signs as the standards say", function()
		assert.are.equal("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", device.sha256(""))
		assert.are.equal("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", device.sha256("abc"))
		assert.are.equal("248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
			device.sha256("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"))
		assert.are.equal("b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7", device.hmac_sha256(("\11"):rep(20), "Hi There"))
		assert.are.equal("60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
			device.hmac_sha256(("\170"):rep(131), "Test Using Larger Than Block-Size Key - Hash Key First"))
	end)
	it("takes no other key", function()
		assert.is_nil(device.signer("arcade", "abc"))
		assert.is_nil(device.signer(nil, ("0"):rep(64)))
	end)
end)

describe("options", function()
	it("a folder where the host has no files is said, not raised", function()
		local files = _G.io
		_G.io = nil
		local answer = { pcall(spoorway.new, { folder = "x", url = "http://127.0.0.1" }) }
		_G.io = files
		assert.are.same({ true, nil, "storage" }, answer)
	end)

	it("are refused by name", function()
		for name, options in pairs({ url = { url = "nonsense" }, platform = { url = "http://a", platform = "fridge" }, transport = { transport = "pigeon" },
			https = { url = "https://a", transport = "luasocket" } }) do
			assert.are.same({ nil, name }, { spoorway.new(options) })
		end
	end)
end)

-- Stubs of what the engines document: https://defold.com/ref/http, /ref/sys and https://docs.coronalabs.com/api/library/network
describe("Defold (a stub of its http and sys)", function()
	local saved, asked, full = {}, {}, false
	_G.sys = { get_save_file = function(app, name) return app .. "/" .. name end, load = function(path) return saved[path] or {} end,
		save = function(path, data)
			if full then return false end
			saved[path] = { text = data.text }
			return true
		end }
	_G.http = { request = function(url, method, callback, headers, body, options)
		asked[#asked + 1] = { url = url, method = method, callback = callback, headers = headers, body = body, options = options }
	end }
	local defold = require("spoorway_defold")
	_G.sys, _G.http = nil, nil

	local function start() return world({ transport = defold, storage = defold.storage({ app_id = "duck" }) }) end

	it("saves in a later frame what could not be saved, and nothing that is gone", function()
		local storage = defold.storage({ app_id = "goose" })
		full = true
		for _, name in ipairs({ "a", "b", "c" }) do storage.append(name, name .. "1") end
		storage.sync()
		assert.are.same({}, { saved["goose/a"], saved["goose/b"], saved["goose/c"] })
		full = false
		storage.remove("b")
		storage.append("a", "2")
		storage.sync()
		assert.are.same({ "a12", "", "c1" }, { saved["goose/a"].text, saved["goose/b"].text, saved["goose/c"].text })
		saved["goose/a"].text = "as it was"
		storage.sync()
		assert.are.equal("as it was", saved["goose/a"].text)
	end)

	it("posts, saves once a frame, and hears answers", function()
		local tracker, w = start()
		tracker:track_page_view("x")
		assert.is_nil(saved["duck/spoorway-sp-1"])
		w.step(0, 1)
		assert.truthy(saved["duck/spoorway-sp-1"].text:find('"url":"x"', 1, true))
		local again, w2 = start()
		assert.are.equal(1, again:status().queued)
		w2.step()
		local request = asked[#asked]
		assert.are.equal("http://127.0.0.1/com.snowplowanalytics.snowplow/tp2", request.url)
		assert.are.equal("POST", request.method)
		assert.are.equal("application/json", request.headers["Content-Type"])
		request.callback({}, 1, { status = 503, response = "", headers = { ["retry-after"] = "60" } })
		w2.step()
		assert.is_true(again:status().retry_s > 59)
		w2.step(61)
		asked[#asked].callback({}, 2, { status = 200, response = "ok", headers = {} })
		w2.step()
		assert.are.equal(1, again:status().sent)
		assert.are.equal("", saved["duck/spoorway-sp-1"].text)
	end)
end)

describe("Solar2D (a stub of its network)", function()
	local asked = {}
	_G.network = { request = function(url, method, listener, params)
		asked[#asked + 1] = { url = url, method = method, listener = listener, params = params }
	end }
	_G.system = {}
	local solar2d = require("spoorway_solar2d")
	_G.network, _G.system = nil, nil

	it("posts and hears answers", function()
		local tracker, w = world({ transport = solar2d })
		tracker:track_page_view("x")
		w.step()
		assert.truthy(asked[1].params.body:find('"url":"x"', 1, true))
		asked[1].listener({ isError = true, phase = "ended", status = -1 })
		w.step()
		assert.are.equal(1, tracker:status().failed)
		w.step(2)
		asked[2].listener({ phase = "began" })
		w.step()
		asked[2].listener({ phase = "ended", status = 200, responseHeaders = {} })
		w.step()
		assert.are.equal(1, tracker:status().sent)
	end)
end)
