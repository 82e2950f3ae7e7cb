rockspec_format = "3.0"
package = "spoorway"
version = "1.0.0-1"
source = { url = "git+https://github.com/spoorway/spoorway.git", tag = "lua-1.0.0", dir = "spoorway/trackers/lua" }
description = {
	summary = "Events of games and programs, kept until a Snowplow-compatible gateway has them on disk",
	detailed = "One file without dependencies for Lua 5.1 to 5.5, LuaJIT, LÖVE, Defold and Solar2D. A queue that survives a kill, a budget for each frame.",
	license = "Apache-2.0",
	labels = { "analytics", "events", "games", "love2d", "snowplow" },
}
dependencies = { "lua >= 5.1, < 5.6" } -- LuaSocket only where its transport is used, LuaSec only for its https
build = {
	type = "builtin",
	modules = {
		spoorway = "spoorway.lua",
		spoorway_defold = "spoorway_defold.lua",
		spoorway_device = "spoorway_device.lua",
		spoorway_file = "spoorway_file.lua",
		spoorway_https = "spoorway_https.lua",
		spoorway_mqtt = "spoorway_mqtt.lua",
		spoorway_overlay = "spoorway_overlay.lua",
		spoorway_solar2d = "spoorway_solar2d.lua",
	},
	copy_directories = { "examples" },
}
