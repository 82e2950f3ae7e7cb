std = "luajit+love"
max_line_length = 170
