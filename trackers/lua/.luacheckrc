std = "max+love"
max_line_length = 170
