-- One figure of the Lua tracker, printed as a number. PATH WHAT FOLDER URL
package.path = arg[1] .. "/?.lua;" .. package.path
local what, folder, url = arg[2], arg[3], arg[4]
local found, socket = pcall(require, "socket")
assert(found or what == "memory" or what == "sent", socket)
local function memory() -- KB, once collecting frees no more: LuaJIT lets go of its buffers by halves
	local before, now
	repeat before, now = now, collectgarbage() and collectgarbage("count") until before and now >= before
	return now
end

if what == "memory" then -- KB of the module once it is loaded, of it with a tracker, and of a tracker whose module was let go of
	local held = {} -- the interpreter's table of all strings doubles now and then: not while we measure
	for i = 1, 5000 do held[i] = "text " .. i end
	local before = memory()
	local spoorway = require("spoorway")
	local loaded = memory() - before
	local options = { url = url, app_id = "bench", folder = folder }
	if not spoorway.transports.luasocket then options.transport = function() end end
	local tracker = assert(spoorway.new(options))
	options = nil
	local whole = memory() - before
	spoorway, package.loaded.spoorway = nil, nil
	local alone = memory() - before
	return print(loaded, whole, alone, tracker:status().queued, #held)
elseif what == "sent" then -- the most KB of the module and a tracker, each time that 100 of 1,000 events were sent
	local held, most = {}, 0
	for i = 1, 5000 do held[i] = "text " .. i end
	local before = memory()
	local tracker = assert(require("spoorway").new({ url = url, app_id = "bench", folder = folder, interval = 0,
		transport = function(_, done) done(200) end }))
	for i = 1, 1000 do
		assert(tracker:track_level_end("level " .. i % 100, "failed", { score = i, cause = "owl", item = "item " .. i }))
		tracker:update(1)
		if i % 10 == 0 then collectgarbage() end -- the table of strings, again
		if i % 100 == 0 then
			assert(tracker:flush(10))
			most = math.max(most, memory() - before)
		end
	end
	return print(most, #held)
elseif what == "load" then -- milliseconds of processor time from require to a tracker with nothing to send
	local began = os.clock()
	local tracker = assert(require("spoorway").new({ url = url, app_id = "bench", folder = folder }))
	return print((os.clock() - began) * 1000, tracker:status().queued)
elseif what == "plain" then -- as "track", of what one writes without a tracker: dkjson, LuaSocket's base64 in C, a line of a file
	local json, mime, rounds = require("dkjson"), require("mime"), {}
	local file = assert(io.open(folder .. "/events", "ab"))
	for round = 0, 15 do
		local began = os.clock()
		for i = 1, 500 do
			local data = { schema = "iglu:com.acme/level_end/jsonschema/1-0-0",
				data = { level = "meadow", score = i, outcome = "completed", x = 1.25, boss = false } }
			local id = ("%08x-%04x-4%03x-%04x-%012x"):format(math.random(0, 2 ^ 31 - 1), math.random(0, 65535), math.random(0, 4095),
				math.random(32768, 49151), math.random(0, 2 ^ 31 - 1))
			file:write(json.encode({ e = "ue", eid = id, dtm = ("%.0f"):format(os.time() * 1000), aid = "bench", p = "app", tna = "sp", tv = "plain",
				ue_px = mime.b64(json.encode({ schema = "iglu:com.snowplowanalytics.snowplow/unstruct_event/jsonschema/1-0-0", data = data })) }), "\n")
			file:flush()
		end
		rounds[round] = (os.clock() - began) / 500 * 1e6
	end
	table.sort(rounds)
	return print(rounds[8])
end

local spoorway = require("spoorway")
local function start(storage)
	return assert(spoorway.new({ url = url, app_id = "bench", storage = storage, interval = 0 }))
end
local function event(tracker, i)
	return assert(tracker:track_self_describing("iglu:com.acme/level_end/jsonschema/1-0-0",
		{ level = "meadow", score = i, outcome = "completed", x = 1.25, boss = false }))
end

local function structured(tracker, i) return assert(tracker:track_structured("shop", "buy", "boots", "red", i)) end

if what == "track" or what == "structured" then -- microseconds of processor time of one call, in the file when it returns: the median of 15 rounds of 500
	local tracker, rounds, call = start(spoorway.storage.io(folder)), {}, what == "track" and event or structured
	for i = 1, 500 do call(tracker, i) end
	for round = 1, 15 do
		local began = os.clock()
		for i = 1, 500 do call(tracker, i) end
		rounds[round] = (os.clock() - began) / 500 * 1e6
	end
	table.sort(rounds)
	print(rounds[8])
elseif what == "open" then -- milliseconds of new() with 10,000 events in the queue
	local tracker = start(spoorway.storage.io(folder))
	for i = 1, 10000 do event(tracker, i) end
	tracker:close(0)
	collectgarbage()
	local began = socket.gettime()
	tracker = start(spoorway.storage.io(folder))
	print((socket.gettime() - began) * 1000, tracker:status().queued)
elseif what == "update" then -- milliseconds, and of processor, of 999 in 1,000 calls of update() within 4 s, while the server behaves as it does
	local tracker, frames, busy = start(spoorway.storage.memory()), {}, {}
	for i = 1, 300 do event(tracker, i) end
	local stop = socket.gettime() + 4
	while socket.gettime() < stop do
		local began, used = socket.gettime(), os.clock()
		tracker:update(0.016)
		frames[#frames + 1], busy[#busy + 1] = (socket.gettime() - began) * 1000, (os.clock() - used) * 1000
		socket.sleep(0.0005)
	end
	table.sort(frames)
	table.sort(busy)
	print(frames[math.ceil(#frames * 0.999)], busy[math.ceil(#busy * 0.999)], frames[#frames], #frames)
elseif what == "blocking" then -- milliseconds of one event sent as it is tracked, by LuaSocket's own socket.http: what a game writes first
	local http = require("socket.http")
	http.TIMEOUT = 2
	local query = "/i?e=se&se_ca=game&se_ac=level&p=app&tv=lua-hand&aid=bench&eid="
	local times = {}
	for i = 1, 50 do
		local began = socket.gettime()
		local ok = http.request(url .. query .. ("00000000-0000-4000-8000-%012d"):format(i))
		times[i] = (socket.gettime() - began) * 1000
		if not ok then break end
	end
	table.sort(times)
	print(times[math.ceil(#times / 2)], times[#times])
end
