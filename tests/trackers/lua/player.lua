-- A game without graphics that is killed at any moment: PATH URL FOLDER COUNT. Prints the id of each event once track has
-- returned, and "done" when the queue is empty.
package.path = arg[1] .. "/?.lua;" .. package.path
local spoorway = require("spoorway")
local socket = require("socket")
io.stdout:setvbuf("line")

local tracker = assert(spoorway.new({
	url = arg[2], app_id = "killed-game", storage = spoorway.storage.io(arg[3]), interval = 0.02, batch_bytes = 4096, max_bytes = 4000000,
	on_error = function(code, detail) io.stderr:write(code, " ", tostring(detail), "\n") end,
}))
io.write("queued ", tracker:status().queued, "\n")
for i = 1, tonumber(arg[4]) do
	local id, why = tracker:track_level_end("level " .. i % 7, "failed", { score = i, cause = "owl" })
	assert(id or why == "full", why) -- many lives offline fill the queue; what was refused was said to be
	if id then io.write(id, "\n") end
	if i % 3 == 0 then
		socket.sleep(0.001)
		tracker:update()
	end
end
local empty = tracker:close(20)
io.write(empty and "done\n" or "left\n")
