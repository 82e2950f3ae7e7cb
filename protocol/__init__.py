"""The words every room shares: parameters, columns, schemas, wire codecs, seam types, vectors.

Law: imports no other room. What is written here is true on both sides of a seam.
"""
