--[[ The rules of the game: keys and seconds -> what is on the field, and words of what happened. Knows no tracker, no screen.

Catch the ducks of a level before the owl catches you; coins buy boots in the shop, which make you faster. ]]
local game = {}
game.__index = game

local LEVELS = { { name = "meadow", ducks = 3, owl = 40 }, { name = "pond", ducks = 4, owl = 55 }, { name = "forest", ducks = 5, owl = 70 } }
local BOOTS = 3

function game.new(random) -- random(n): 1 to n
	return setmetatable({ screen = "title", level = 1, attempt = 0, coins = 0, boots = 0, random = random, width = 480, height = 320 }, game)
end

function game:start_level()
	local level = LEVELS[self.level]
	self.screen, self.attempt, self.clock = "level", self.attempt + 1, 0
	self.x, self.y, self.ducks = 240, 160, {}
	self.owl = { x = 10, y = 10, speed = level.owl }
	for i = 1, level.ducks do self.ducks[i] = { x = 20 + self.random(440), y = 20 + self.random(280) } end
	return "level_start", level.name
end

local function near(a, b, distance) return (a.x - b.x) ^ 2 + (a.y - b.y) ^ 2 < distance ^ 2 end

-- dx, dy: -1 to 1. Gives what happened, if anything: "duck", "level_completed", "death".
function game:play(dt, dx, dy)
	self.clock = self.clock + dt
	local speed = 90 + 40 * self.boots
	self.x = math.max(0, math.min(self.width, self.x + dx * speed * dt))
	self.y = math.max(0, math.min(self.height, self.y + dy * speed * dt))
	local owl, distance = self.owl, math.max(1, math.sqrt((self.x - self.owl.x) ^ 2 + (self.y - self.owl.y) ^ 2))
	owl.x, owl.y = owl.x + (self.x - owl.x) / distance * owl.speed * dt, owl.y + (self.y - owl.y) / distance * owl.speed * dt
	if near(self, owl, 12) then
		self.screen = "dead"
		return "death"
	end
	for i, duck in ipairs(self.ducks) do
		if near(self, duck, 16) then
			table.remove(self.ducks, i)
			self.coins = self.coins + 1
			if #self.ducks > 0 then return "duck" end
			self.screen = self.level < #LEVELS and "shop" or "won"
			return "level_completed"
		end
	end
end

function game:level_name() return LEVELS[self.level].name end

function game:next_level()
	self.level, self.attempt = math.min(self.level + 1, #LEVELS), 0
	return self:start_level()
end

function game:buy_boots() -- the price, or nil
	if self.coins < BOOTS then return nil end
	self.coins, self.boots = self.coins - BOOTS, self.boots + 1
	return BOOTS
end

return game
