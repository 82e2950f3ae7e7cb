"""Keeping: Event -> Row -> target, failed events beside them, rows and cursor in one commit.

Law: imports only `protocol`.
"""
