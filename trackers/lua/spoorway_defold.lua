--[[ Defold's http.request and sys.save -> a transport and a storage. Beside spoorway.lua.

	spoorway.new { url = URL, app_id = "duck-hunt", transport = require("spoorway_defold") }

sys.save writes whole files: what a frame tracked is saved by its tracker:update(), so a kill may cost that one frame.
No call blocks; flush() and close() cannot wait for an answer here. ]]
local M = { https = true }
local http, sys = rawget(_G, "http"), rawget(_G, "sys")

function M.transport(_, options)
	return function(request, done)
		http.request(request.url, "POST", function(_, _, answer) done(answer.status, answer.headers) end, request.headers, request.body,
			{ timeout = options.timeout })
	end
end

function M.storage(options)
	local files, dirty, waiting = {}, {}, {} -- waiting: a list of names, since pairs() is not to be trusted (README.md)
	options.batch_bytes = math.min(options.batch_bytes or 8192, 8192) -- a frame that tracked something writes at most this
	local function path(name) return sys.get_save_file(options.app_id or "spoorway", name) end
	local function chunks(name)
		files[name] = files[name] or { (sys.load(path(name)) or {}).text }
		return files[name]
	end
	local function save(name)
		files[name] = { table.concat(files[name]) }
		return sys.save(path(name), { text = files[name][1] })
	end
	return {
		read = function(name)
			local text = table.concat(chunks(name))
			return text ~= "" and text or nil
		end,
		write = function(name, text)
			files[name] = { text }
			return save(name)
		end,
		append = function(name, text)
			table.insert(chunks(name), text)
			if not dirty[name] then table.insert(waiting, name) end
			dirty[name] = true
			return true
		end,
		remove = function(name)
			files[name], dirty[name] = {}, nil
			save(name)
		end,
		sync = function()
			for i = #waiting, 1, -1 do
				local name = waiting[i]
				if not dirty[name] or save(name) then
					dirty[name] = nil
					table.remove(waiting, i)
				end
			end
		end,
	}
end

return M
