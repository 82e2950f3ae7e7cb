std = "max+love"
max_line_length = 170
files["**/examples/solar2d/*.lua"] = { read_globals = { "system", "Runtime" } }
