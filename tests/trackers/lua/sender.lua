-- Tracks COUNT page views and takes them to a gateway, frame by frame: PATH URL COUNT SECONDS [KIND NAME SECRET [CERTIFICATE]]. Then tells of its
-- frames: how many, the slowest one in ms, and in ms of processor that of 95 in 100; and of its tracker: queued, sent, attempts that failed.
package.path = arg[1] .. "/?.lua;" .. package.path
local spoorway = require("spoorway")
local socket = require("socket")
local options = { url = arg[2], app_id = "sender", interval = 0, timeout = 3, random = nil }
if arg[5] == "hmac" then options.sign = require("spoorway_device").signer(arg[6], arg[7]) end
if arg[5] == "mqtt" then options.transport, options.device, options.password = require("spoorway_mqtt"), arg[6], arg[7] end
if arg[8] then options.tls = { mode = "client", protocol = "any", options = "all", verify = "peer", cafile = arg[8] } end
local tracker = assert(spoorway.new(options))
for i = 1, tonumber(arg[3]) do assert(tracker:track_page_view("https://game.example/" .. i, ("t"):rep(300))) end
local frames, busy, stop = {}, {}, socket.gettime() + tonumber(arg[4])
collectgarbage("collect")
while tracker:status().queued > 0 and socket.gettime() < stop do
	local began, used = socket.gettime(), os.clock()
	tracker:update(0.016)
	frames[#frames + 1], busy[#busy + 1] = (socket.gettime() - began) * 1000, (os.clock() - used) * 1000
	socket.sleep(0.001)
end
table.sort(frames)
table.sort(busy)
local status = tracker:status()
print(#frames, frames[#frames], busy[math.ceil(#busy * 0.95)], status.queued, status.sent, status.failed)
