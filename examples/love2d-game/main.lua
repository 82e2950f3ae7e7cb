--[[ Duck Hunt: a small game that shows where events belong. What is tracked is in `happened`; the rest is the game.

	love examples/love2d-game                                  arrows to move, space to go on, b to buy boots
	SPOORWAY_URL=https://… love …                              where events go (default: http://127.0.0.1:8080)
]]
-- In your own game spoorway.lua lies beside main.lua; here it is taken from where it is developed.
local here = love.filesystem.getSource()
package.path = here .. "/?.lua;" .. here .. "/../../trackers/lua/?.lua;" .. package.path
local spoorway = require("spoorway")
local overlay = require("spoorway_overlay")
local game = require("game")

local tracker, play, robot

local function happened(what, detail)
	if what == "level_start" then
		tracker:track_level_start(detail, { attempt = play.attempt })
	elseif what == "duck" then
		tracker:track_economy("earned", "coins", 1, { balance = play.coins, level = play:level_name(), place = "level" })
	elseif what == "level_completed" then
		tracker:track_economy("earned", "coins", 1, { balance = play.coins, level = play:level_name(), place = "level" })
		tracker:track_level_end(play:level_name(), "completed", { duration_ms = math.floor(play.clock * 1000), attempt = play.attempt, score = play.coins })
		tracker:track_screen_view(play.screen)
	elseif what == "death" then
		tracker:track_level_end(play:level_name(), "failed", { cause = "owl", x = math.floor(play.x), y = math.floor(play.y),
			duration_ms = math.floor(play.clock * 1000), attempt = play.attempt })
		tracker:track_screen_view("dead")
	elseif what == "bought" then
		tracker:track_economy("spent", "coins", detail, { item = "boots", item_type = "gear", place = "shop", balance = play.coins })
	end
end

local function go_on()
	if play.screen == "title" or play.screen == "dead" then
		happened(play:start_level())
	elseif play.screen == "shop" then
		happened(play:next_level())
	elseif play.screen == "won" then
		play = game.new(love.math.random)
		tracker:track_screen_view("title")
	end
end

local function buy()
	local price = play.screen == "shop" and play:buy_boots()
	if price then happened("bought", price) end
end

function love.load()
	local why
	tracker, why = spoorway.new({
		url = os.getenv("SPOORWAY_URL") or "http://127.0.0.1:8080", app_id = "duck-hunt", interval = tonumber(os.getenv("SPOORWAY_INTERVAL") or 5),
		on_error = function(code, detail) print("spoorway", code, detail) end,
	})
	if not tracker then error("spoorway: " .. why) end -- a wrong option: better seen now
	play = game.new(love.math.random)
	if os.getenv("SPOORWAY_SCRIPT") then robot = require("robot").new(play, tracker, go_on, buy) end
	tracker:track_session_start({ build = "1.0", mode = "single" })
	tracker:track_screen_view("title")
end

function love.update(dt)
	local dx, dy = 0, 0
	if robot then
		dx, dy, dt = robot(play)
	elseif love.keyboard then
		dx = (love.keyboard.isDown("right") and 1 or 0) - (love.keyboard.isDown("left") and 1 or 0)
		dy = (love.keyboard.isDown("down") and 1 or 0) - (love.keyboard.isDown("up") and 1 or 0)
	end
	if play.screen == "level" then happened(play:play(dt, dx, dy)) end
	tracker:update(love.timer.getDelta())
end

function love.keypressed(key)
	if key == "space" then go_on() elseif key == "b" then buy() elseif key == "escape" then love.event.quit() end
end

function love.quit()
	tracker:track_session_end({ reason = "quit" })
	tracker:close(2) -- what is not sent by then waits for the next start
end

local WORDS = { title = "Duck Hunt - space to begin", shop = "Shop - b: boots for 3 coins, space: on", dead = "The owl got you - space", won = "You won - space" }

function love.draw()
	local graphics = love.graphics
	if play.screen == "level" then
		graphics.setColor(0.9, 0.8, 0.2)
		for _, duck in ipairs(play.ducks) do graphics.circle("fill", duck.x, duck.y, 8) end
		graphics.setColor(0.7, 0.3, 0.2)
		graphics.circle("fill", play.owl.x, play.owl.y, 10)
		graphics.setColor(0.3, 0.7, 1)
		graphics.circle("fill", play.x, play.y, 8)
	end
	graphics.setColor(1, 1, 1)
	graphics.print(WORDS[play.screen] or play:level_name(), 160, 12)
	graphics.print("coins " .. play.coins .. "  boots " .. play.boots, 8, 300)
	overlay(tracker, 160, 300)
end
